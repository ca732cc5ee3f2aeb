"""Devices as typed values: which GPUs a session may use, and what each run gets of them."""

from __future__ import annotations

import pytest
import torch

from peft_methods.profiling import environment
from peft_methods.runs.executors.devices import (
    DeviceSet,
    default_workers,
    slots,
    threads_per_run,
    visible_gpus,
)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A driver that shows four GPUs, by their UUIDs. A UUID of None is not reported."""
    if torch.cuda.is_available():
        pytest.skip("has real GPUs")
    import pynvml

    uuids: list[str | None] = [f"GPU-{letter}" for letter in "abcd"]

    def uuid(handle: str) -> str:
        found = uuids[int(handle)]
        if found is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return found

    for name, answer in (
        ("nvmlInit", lambda: None),
        ("nvmlDeviceGetCount", lambda: len(uuids)),
        ("nvmlDeviceGetHandleByIndex", str),
        ("nvmlDeviceGetUUID", uuid),
    ):
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(
        environment, "package_version", lambda name: "2.13.0"
    )  # torch without "+cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return uuids


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("GPU-a", "GPU-b", "GPU-c", "GPU-d")),
        ("2,0", ("GPU-c", "GPU-a")),  # the order is the user's
        (" 1 , GPU-d", ("GPU-b", "GPU-d")),
        ("MIG-7", ("MIG-7",)),
        ("", ()),
        ("-1", ()),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_visible_gpus_are_named_by_uuid_within_the_users_choice(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[str, ...]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected


def test_gpu_without_a_uuid_is_named_by_its_index(four_gpus: list[str | None]) -> None:
    four_gpus[:] = [None, "GPU-b"]
    assert visible_gpus() == ("0", "GPU-b")


@pytest.mark.usefixtures("four_gpus")
def test_each_run_on_gpus_gets_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0")
    assert slots("cuda", cores=16, workers=2) == (
        DeviceSet(("GPU-d",), 2),
        DeviceSet(("GPU-b",), 2),
    )
    assert len(slots("cuda", cores=16, workers=9)) == 3  # no GPU is shared


def test_runs_on_a_cpu_share_the_cores() -> None:
    assert slots("cpu", cores=6, workers=2) == (DeviceSet((), 3),) * 2
    assert slots("cpu", cores=1, workers=3) == (DeviceSet((), 1),) * 3
    assert [default_workers("cpu", cores) for cores in (1, 2, 8)] == [1, 2, 2]
    assert [default_workers("cuda", cores) for cores in (1, 8)] == [1, 1]
    assert [threads_per_run("cuda", cores, workers=1) for cores in (1, 16)] == [1, 2]


def test_device_set_hides_every_other_gpu_from_a_process() -> None:
    assert DeviceSet().environment() == {"CUDA_VISIBLE_DEVICES": ""}
    both = DeviceSet(("GPU-a", "GPU-b"), 4)
    assert both.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    assert (DeviceSet().kind, both.kind) == ("cpu", "cuda")
