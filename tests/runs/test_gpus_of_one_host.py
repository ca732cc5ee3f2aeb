"""Several GPUs of one host: real processes that train on the CPU, each as if it had a GPU.

`CUDA_VISIBLE_DEVICES` is what tells their GPUs apart, as for real ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from misbehaving_methods import Misbehaving
from nvml_builders import FakeDriver, gpus, need_no_gpu, uuid_of

from builders import small_runs
from peft_methods.profiling.gpus import gpus_here
from peft_methods.runs.executors import gpu_failure
from peft_methods.runs.executors.cores import own_cores
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

A, B = uuid_of("a"), uuid_of("b")
ECC = "CUDA error: uncorrectable ECC error encountered"
ASSERT = "CUDA error: device-side assert triggered"
MakeScheduler = Callable[..., Scheduler]
MakeRuns = Callable[..., list[RunSpec]]


@pytest.fixture
def make_scheduler(tmp_path: Path) -> Iterator[MakeScheduler]:
    """Schedulers whose executor has two GPUs, A and B."""
    made: list[Scheduler] = []

    def make(*, turns: bool = False, retries: int = 1) -> Scheduler:
        store = Store(tmp_path / "results")
        store.prepare()
        first, last = own_cores()[0], own_cores()[-1]
        slots = [DeviceSet((A,), 1, (first,), (first,)), DeviceSet((B,), 1, (last,), (last,))]
        folder = RunFolder(store)
        requests = RunRequests(store, folder, "cpu", slots[0].resources)
        executor = LocalExecutor(slots, folder.path, turns=turns)
        made.append(Scheduler(executor, requests, retries=retries))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def make_runs(tiny_recipe: Path) -> MakeRuns:
    def make(*ways: str) -> list[RunSpec]:
        (run,) = small_runs(tiny_recipe, "head_only")
        return [
            replace(run, method=Misbehaving(learning_rate=5e-2, way=way), seed=seed)
            for seed, way in enumerate(ways)
        ]

    return make


def trained(scheduler: Scheduler, runs: list[RunSpec]) -> list[Record]:
    scheduler.submit(runs)
    return scheduler.wait(runs)


def gpus_of(records: list[Record]) -> list[list[str]]:
    return [record.environment["gpus"] for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("turns", [False, True])
def test_each_gpu_trains_one_run_and_records_say_what_ran_beside_it(
    make_scheduler: MakeScheduler, make_runs: MakeRuns, turns: bool
) -> None:
    records = trained(make_scheduler(turns=turns), make_runs("", "", ""))
    assert [record.status for record in records] == ["ok"] * 3, records[0].message
    assert {gpu for (gpu,) in gpus_of(records)} == {A, B}
    for record in records:
        assert record.environment["runs_at_a_time"] == 2
        assert record.environment["trained_in_turns"] == turns
        assert record.environment["cores"] == 1  # of its slot
    if turns:
        times = sorted(record.environment["trained_between"] for record in records)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


@pytest.mark.slow
def test_run_whose_gpu_failed_is_tried_on_another_and_that_is_no_attempt(
    make_scheduler: MakeScheduler, make_runs: MakeRuns
) -> None:
    scheduler = make_scheduler(retries=0)
    records = trained(scheduler, make_runs(f"{A}: {ECC}", "", ""))
    assert [record.status for record in records] == ["ok"] * 3, records[0].message
    assert gpus_of(records)[0] == [B]
    assert [record.attempts for record in records] == [()] * 3
    (note,) = scheduler.executor.notes
    assert f"{A} is left out since it failed (RuntimeError: {ECC}); 1 of 2 left." in note


@pytest.mark.slow
def test_run_that_fails_by_itself_takes_no_gpu_out(
    make_scheduler: MakeScheduler, make_runs: MakeRuns
) -> None:
    scheduler = make_scheduler(retries=0)
    records = trained(scheduler, make_runs(f"any: {ASSERT}", "any: CUDA out of memory.", "die"))
    assert [record.status for record in records] == ["failed", "failed", "crashed"]
    assert scheduler.executor.capacity.gpus == 2
    assert scheduler.executor.notes == []


@pytest.mark.slow
def test_runs_end_with_a_record_that_says_so_if_no_gpu_is_left(
    make_scheduler: MakeScheduler, make_runs: MakeRuns
) -> None:
    scheduler = make_scheduler(retries=1)
    records = trained(scheduler, make_runs(*[f"any: {ECC}"] * 3))
    assert {record.status for record in records} == {"failed"}
    assert "no GPU is left, and it needs 1. Last failure: Runtime" in records[-1].message
    assert scheduler.executor.capacity.gpus == 0
    assert len(scheduler.executor.notes) == 2
    assert len(list(scheduler.requests.store.folder.glob("*.json"))) == 3


@pytest.mark.slow
def test_gpu_that_the_driver_has_lost_is_left_out(
    make_scheduler: MakeScheduler, make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was killed, which says nothing of the GPU: NVML does."""
    need_no_gpu()
    driver = FakeDriver(gpus("a", "b")).install(monkeypatch)
    assert len(gpus_here()) == 2
    scheduler = make_scheduler(retries=0)
    driver.gpus[0].lost = True
    records = trained(scheduler, make_runs(f"{A}: die"))
    assert [record.status for record in records] == ["ok"], records[0].message
    assert gpus_of(records) == [[B]]
    assert "NVML: GPU is lost" in scheduler.executor.notes[0]


@pytest.mark.parametrize(
    ("message", "is_of_the_gpu"),
    [
        (ECC, True),
        ("CUDA error: uncorrectable NVLink error detected during the execution", True),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel", True),
        ("CUDA error: no CUDA-capable device is detected", True),
        ("No CUDA GPUs are available", True),
        ("GPU is lost", True),
        ("GPU requires reset", True),
        ("CUDA error: system not yet initialized", True),
        (ASSERT, False),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity", False),
        ("CUDA error: out of memory", False),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: unspecified launch failure", False),
        ("CUDA error: misaligned address", False),
        ("CUDA error: the launch timed out and was terminated", False),
        ("CUDA error: no kernel image is available for execution on the device", False),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", False),
        ("hardware is fine", False),
    ],
)
def test_failures_of_a_gpu_are_told_from_those_of_a_run(message: str, is_of_the_gpu: bool) -> None:
    error = RuntimeError(message)
    assert bool(gpu_failure.gpu_failure(error)) == is_of_the_gpu
    outer = ValueError("training failed")
    outer.__cause__ = error
    assert bool(gpu_failure.gpu_failure(outer)) == is_of_the_gpu


def test_health_is_asked_of_known_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    need_no_gpu()
    driver = FakeDriver(gpus("a", "b")).install(monkeypatch)
    health = gpu_failure.GpuHealth([A, B, "0", uuid_of("c")])
    assert [health.problem(one) for one in (A, B, "0", uuid_of("c"))] == [""] * 4
    driver.gpus[1].lost = True
    assert health.problem(B) == "NVML: GPU is lost"
    driver.gpus.clear()
    assert gpu_failure.GpuHealth([A]).problem(A) == ""
