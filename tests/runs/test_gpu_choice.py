"""Which GPUs a session may use and which it chooses, by a driver that stands in for a real one."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvml_builders import GIB, FakeDriver, FakeGpu, Slice, gpus, need_no_gpu, uuid_of

from peft_methods.profiling.gpus import gpus_here
from peft_methods.runs.executors.gpu_choice import choose_gpus, parse_devices
from peft_methods.utils.errors import OptionError

A, B, C, D = (uuid_of(letter) for letter in "abcd")
SLICES = (
    Slice(uuid_of("1", "MIG"), instances=(1, 0)),
    Slice(uuid_of("2", "MIG"), instances=(2, 0)),
)
Driver = Callable[..., FakeDriver]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Install a driver with these GPUs; without any, with four of one kind."""
    need_no_gpu()

    def install(*given: FakeGpu) -> FakeDriver:
        return FakeDriver(list(given) or gpus(*"abcd")).install(monkeypatch)

    return install


def names() -> list[str]:
    return [gpu.uuid for gpu in gpus_here()]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B, C, D]),
        ("2,0", [C, A]),  # the order is the user's
        (f" 1 , {D}", [B, D]),
        ("GPU-cccccccc", [C]),  # shortened, as some schedulers do
        ("GPU-c,0", [C, A]),
        ("1,7,0", [B]),  # CUDA ignores what follows an entry that names no GPU
        ("0,-1,1", [A]),
        ("0,0", [A]),
        ("MIG-7", ["MIG-7"]),  # torch will say what is wrong with it
        ("", []),
        ("-1", []),
        ("-1,0", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_gpus_are_those_within_the_callers_choice(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    driver()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names() == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, SLICES[0].uuid, SLICES[1].uuid]),
        ("1", [SLICES[0].uuid, SLICES[1].uuid]),
        (B, [SLICES[0].uuid, SLICES[1].uuid]),
        (f"{SLICES[1].uuid},{A}", [SLICES[1].uuid, A]),
        ("MIG-2222", [SLICES[1].uuid]),
        (f"MIG-{B}/2/0", [SLICES[1].uuid]),  # the name before driver 470
        (f"mig-{B}/1/0", [SLICES[0].uuid]),
        (f"MIG-{B}/3/0,0", [f"MIG-{B}/3/0"]),
    ],
)
def test_slices_of_a_gpu_in_mig_mode_are_gpus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    driver(FakeGpu(A), FakeGpu(B, slices=SLICES))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names() == expected


def test_slice_has_a_kind_and_memory_of_its_own(driver: Driver) -> None:
    driver(FakeGpu(B, slices=SLICES))
    assert {gpu.kind_text for gpu in gpus_here()} == {"NVIDIA H200 MIG 1g.18gb, 16 GiB"}


def test_gpu_without_a_uuid_is_named_by_its_index(driver: Driver) -> None:
    driver(FakeGpu(None), FakeGpu(B))
    assert names() == ["0", B]


def test_gpu_that_has_fallen_off_the_bus_is_not_visible(driver: Driver) -> None:
    driver(FakeGpu(A, lost=True), FakeGpu(B))
    assert names() == [B]


@pytest.mark.parametrize(
    ("visible", "devices", "expected"),
    [
        (None, "0,2", [A, C]),
        (None, [3, "GPU-a"], [D, A]),
        (None, B.upper(), [B]),
        ("3,1", "0", [D]),  # an index counts the visible ones
        ("3,1", "GPU-b", [B]),
    ],
)
def test_devices_are_named_by_index_or_uuid(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None, devices: object,
    expected: list[str],
) -> None:  # fmt: skip
    driver()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = parse_devices(devices)  # type: ignore[arg-type]
    assert found == tuple(expected)
    assert [gpu.uuid for gpu in choose_gpus(found).gpus] == expected


@pytest.mark.parametrize(
    ("visible", "devices", "message"),
    [
        ("0,1", "2", "there is no visible GPU 2. Indices count the visible GPUs within CUDA_VIS"),
        ("0,1", "GPU-dd", "GPU-dd is hidden"),
        (None, "GPU-", "GPU- is ambiguous: 4 UUIDs begin with it"),
        (None, A.replace("aa-", "ab-", 1), f"Did you mean '{A}'?"),
        (None, "0,GPU-a", "0 and GPU-a name one GPU twice"),
        (None, "0,,1", "has an empty name"),
        (None, "", "has an empty name"),
        (None, "99999999999999999999", "there is no visible GPU"),
        (None, "-1", "no GPU '-1' is known"),
        ("", "0", "no GPU is usable here (CUDA_VISIBLE_DEVICES='' hides all"),
    ],
)
def test_wrong_devices_are_refused_in_one_line(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None, devices: str, message: str
) -> None:
    driver()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(OptionError) as caught:
        parse_devices(devices)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.setting == "devices"


def test_gpu_in_mig_mode_is_named_by_its_slices(driver: Driver) -> None:
    driver(FakeGpu(A), FakeGpu(B, slices=SLICES))
    assert parse_devices("1,2") == (SLICES[0].uuid, SLICES[1].uuid)
    with pytest.raises(OptionError, match="is in MIG mode: name one of its slices"):
        parse_devices(B)


def test_named_devices_are_of_one_kind(driver: Driver) -> None:
    driver(*gpus("a"), *gpus("b", name="NVIDIA A100"), *gpus("c", memory=40 * GIB))
    with pytest.raises(OptionError, match=r"are of 2 kinds .NVIDIA H200, 140 GiB; NVIDIA A100"):
        parse_devices("0,1")
    with pytest.raises(OptionError, match="H200, 140 GiB; NVIDIA H200, 40 GiB"):
        parse_devices("0,2")
    assert parse_devices("2") == (C,)


def test_by_default_all_of_the_most_numerous_kind_are_used(driver: Driver) -> None:
    driver(*gpus("a", name="NVIDIA A100"), *gpus("b", "c"))
    found = choose_gpus()
    assert [gpu.uuid for gpu in found.gpus] == [B, C]
    assert found.device_name == "NVIDIA H200"
    (note,) = found.notes
    assert "Left out: 0 (NVIDIA A100, 140 GiB). Name them with devices" in note


def test_of_equally_numerous_kinds_the_first_is_used(driver: Driver) -> None:
    driver(*gpus("a", name="NVIDIA A100"), *gpus("b"))
    assert [gpu.uuid for gpu in choose_gpus().gpus] == [A]


def test_workers_take_the_first_gpus_and_no_more_than_there_are(driver: Driver) -> None:
    driver()
    assert [gpu.uuid for gpu in choose_gpus(workers=2).gpus] == [A, B]
    with pytest.raises(OptionError, match=r"4 GPUs can be used, and each trains one run") as caught:
        choose_gpus(workers=5)
    assert caught.value.setting == "workers"
    with pytest.raises(OptionError, match="devices names 1 GPU, and each"):
        choose_gpus([A], workers=2)
    driver(*gpus("a", name="NVIDIA A100"), *gpus("b", "c"))
    with pytest.raises(OptionError, match="2 GPUs can be used of 3 visible ones"):
        choose_gpus(workers=3)


def test_gpus_that_others_use_come_last_and_are_named(driver: Driver) -> None:
    driver(FakeGpu(A, pids=(4711, 4712), used=3 * GIB), FakeGpu(B), FakeGpu(C, used=9 * GIB))
    found = choose_gpus()
    assert [gpu.uuid for gpu in found.gpus] == [B, A, C]
    first, second = found.notes
    assert f"{A} (NVIDIA H200) is used by others: 2 processes of others, 3.0 of 140.0" in first
    assert "hidden processes of others, 9.0 of 140.0 GiB" in second
    assert [gpu.uuid for gpu in choose_gpus(workers=1).gpus] == [B]
    assert choose_gpus(workers=1).notes == ()


def test_gpus_that_lack_memory_are_left_out_unless_named(driver: Driver) -> None:
    driver(FakeGpu(A, pids=(4711,), used=100 * GIB), FakeGpu(B))
    found = choose_gpus()
    assert [gpu.uuid for gpu in found.gpus] == [B]
    assert "is left out: 1 process of others, 100.0 of 140.0 GiB in use" in found.notes[0]
    assert [gpu.uuid for gpu in choose_gpus([A]).gpus] == [A]


def test_if_all_lack_memory_the_freest_is_tried(driver: Driver) -> None:
    driver(FakeGpu(A, used=130 * GIB), FakeGpu(B, used=100 * GIB))
    assert [gpu.uuid for gpu in choose_gpus().gpus] == [B]


def test_memory_of_this_process_is_no_use_by_others(driver: Driver) -> None:
    driver(FakeGpu(A, pids=(os.getpid(),), used=20 * GIB))
    assert choose_gpus().notes == ()


@pytest.mark.parametrize(("order", "said"), [(None, True), ("PCI_BUS_ID", False)])
def test_order_of_indices_is_said_where_cuda_may_count_otherwise(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, order: str | None, said: bool
) -> None:
    driver(*gpus("a", name="NVIDIA A100"), *gpus("b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    found = choose_gpus()
    assert [gpu.uuid for gpu in found.gpus] == [B]
    assert any("they count as in nvidia-smi" in note for note in found.notes) == said


ENTRY = st.one_of(
    st.integers(-2, 6).map(str),
    st.sampled_from([A, B, C, D]).flatmap(
        lambda uuid: st.integers(0, len(uuid)).map(lambda end: uuid[:end])
    ),
    st.text(max_size=6),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRY, max_size=4), visible=st.none() | st.lists(ENTRY, max_size=3))
def test_any_list_gives_distinct_visible_gpus_or_one_line(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    entries: list[str],
    visible: list[str] | None,
) -> None:
    driver()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(visible).replace("\0", ""))
    there = names()
    try:
        found = parse_devices(",".join(entries))
    except OptionError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(set(found)) == len(found) >= 1
        assert set(found) <= set(there)
