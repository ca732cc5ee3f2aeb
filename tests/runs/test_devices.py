"""Devices as typed values: what each run gets of the GPUs and cores."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvml_builders import FakeDriver, FakeGpu, gpus, need_no_gpu, uuid_of

from peft_methods.profiling.gpus import GpuInfo, gpus_here
from peft_methods.runs.executors.cores import keep_to, own_cores, physical_cores, shares
from peft_methods.runs.executors.devices import (
    DeviceSet,
    default_workers,
    slots,
    threads_per_run,
)
from peft_methods.runs.experiment_options import ExperimentOptions
from peft_methods.runs.scheduling import SessionDevices

A, B = GpuInfo("GPU-a", "NVIDIA H200", 0), GpuInfo("GPU-b", "NVIDIA H200", 1)


def test_each_run_on_gpus_gets_one_of_them() -> None:
    found = slots("cuda", range(16), 2, [A, B])
    assert [(one.gpus, one.threads) for one in found] == [(("GPU-a",), 2), (("GPU-b",), 2)]
    assert len(slots("cuda", range(16), 9, [A, B])) == 2  # no GPU is shared


def test_runs_on_a_cpu_share_the_cores() -> None:
    assert slots("cpu", range(6), 2) == (DeviceSet((), 3),) * 2
    assert slots("cpu", [0], 3) == (DeviceSet((), 1),) * 3
    assert [default_workers("cpu", cores) for cores in (1, 2, 8)] == [1, 2, 2]
    assert [default_workers("cuda", cores, 4) for cores in (1, 8)] == [4, 4]
    assert [threads_per_run("cuda", cores, workers=1) for cores in (1, 16)] == [1, 2]
    assert [threads_per_run("cuda", cores, workers=8) for cores in (4, 8, 32)] == [1, 1, 2]


def test_device_set_hides_every_other_gpu_from_a_process() -> None:
    assert DeviceSet().environment() == {"CUDA_VISIBLE_DEVICES": ""}
    both = DeviceSet(("GPU-a",), 2, (0,), (1,)) | DeviceSet(("GPU-b",), 2, (2,), (3,))
    assert both == DeviceSet(("GPU-a", "GPU-b"), 4, (0, 2), (1, 3))
    assert both.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    assert (DeviceSet().kind, both.kind) == ("cpu", "cuda")


def test_cores_are_shared_out_disjointly_and_one_gpu_may_use_all(tmp_path: Path) -> None:
    (alone,) = slots("cuda", range(16), 1, [A])
    assert (alone.cores, alone.waiting_cores) == ((), ())
    found = shares([(core, core + 8) for core in range(8)], [(), ()])
    assert found == [((0, 1, 8, 9), (2, 3, 10, 11)), ((4, 5, 12, 13), (6, 7, 14, 15))]
    every = [core for pair in found for of in pair for core in of]
    assert len(every) == len(set(every))
    few = shares([(core,) for core in range(3)], [(), ()])
    assert few == [((), ()), ((), ())]


def test_a_gpu_gets_the_cores_close_to_it() -> None:
    first, second = shares([(core,) for core in range(8)], [range(4, 8), range(4)])
    assert first == ((4, 5), (6, 7))
    assert second == ((0, 1), (2, 3))


def test_hardware_threads_of_a_core_stay_together(tmp_path: Path) -> None:
    for core, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert physical_cores([0, 1, 2, 3], tmp_path) == [(0, 2), (1, 3)]
    assert physical_cores([0, 1], tmp_path / "none") == [(0,), (1,)]


def test_threads_are_kept_to_cores() -> None:
    before = own_cores()
    try:
        keep_to(())
        assert own_cores() == before
        keep_to(before[:1])
        assert own_cores() == before[:1]
    finally:
        keep_to(before)


def test_session_uses_every_gpu_of_a_kind_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_no_gpu()
    driver = FakeDriver(gpus(*"abc")).install(monkeypatch)
    usual = ExperimentOptions()
    chosen = SessionDevices.chosen
    assert [one.gpus for one in chosen(usual).slots] == [(uuid_of(letter),) for letter in "abc"]
    assert chosen(ExperimentOptions(workers=2)).workers == 2
    assert chosen(ExperimentOptions(devices=(uuid_of("c"),))).slots[0].gpus == (uuid_of("c"),)
    assert chosen(usual).kind[0] == "NVIDIA H200"
    driver.gpus.clear()
    assert chosen(usual).device == "cpu"


def test_close_cores_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    need_no_gpu()
    FakeDriver([FakeGpu(uuid_of("a"), cores=(0,)), FakeGpu(uuid_of("b"))]).install(monkeypatch)
    assert [gpu.near_cores for gpu in gpus_here()] == [(0,), ()]
