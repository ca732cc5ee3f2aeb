"""Slots of the local executor: which of them a job gets, and where the next jobs are prefetched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import runs
from peft_methods.runs.executors import host_memory
from peft_methods.runs.executors.devices import DeviceSet, Resources
from peft_methods.runs.executors.jobs import RunJob
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.process import fork_server
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.store import Store

GPUS = ("GPU-a", "GPU-b", "GPU-c")
ONE, TWO = Resources(1, 1), Resources(2, 2)
MakeJob = Callable[..., RunJob]


@pytest.fixture(scope="module", autouse=True)
def _servers_end() -> Iterator[None]:
    """End the fork servers of these GPUs, whose imports nobody waits for."""
    yield
    for gpus in (GPUS, GPUS[:1]):
        fork_server(DeviceSet(gpus))._end(os.getpid())


@pytest.fixture
def make_job(tiny_recipe: Path, tmp_path: Path) -> MakeJob:
    """Jobs for GPUs. They wait for their turn, which never comes."""
    store = Store(tmp_path / "results")
    store.prepare()
    requests = RunRequests(store, RunFolder(store), "cpu", ONE)
    (run,) = runs(tiny_recipe, "head_only", "budget.seeds=1")

    def make(seed: int, needs: Resources = ONE) -> RunJob:
        return replace(requests.run_job(replace(run, seed=seed), {}), needs=needs)

    return make


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 2**40)
    made = LocalExecutor([DeviceSet((gpu,), 1) for gpu in GPUS], tmp_path)
    yield made
    made.close()


def test_jobs_fill_the_slots_and_several_gpus_take_several(
    executor: LocalExecutor, make_job: MakeJob
) -> None:
    assert executor.capacity == Resources(3, 3)
    pair = executor.start(make_job(0, TWO))
    assert executor.has_room(ONE)
    assert not executor.has_room(TWO)
    executor.start(make_job(1))
    assert not executor.has_room(ONE)
    executor.kill(pair)
    assert executor.has_room(TWO)


def test_next_jobs_are_prefetched_one_on_each_gpu(
    executor: LocalExecutor, make_job: MakeJob
) -> None:
    handles = [executor.start(make_job(seed)) for seed in range(3)]
    following = [make_job(seed) for seed in (3, 4, 5, 6)]
    executor.prefetch(following)
    executor.prefetch(following)  # once is enough
    names = [job.name for job in following]
    assert executor.prefetched() == set(names[:3])
    assert executor.next_prefetched() == set()
    executor.kill(handles[1])
    assert executor.next_prefetched() == {names[1]}
    executor.start(following[1])
    assert executor.prefetched() == {names[0], names[2]}


def test_job_that_is_prefetched_for_a_gpu_in_use_starts_on_a_free_one(
    executor: LocalExecutor, make_job: MakeJob
) -> None:
    handles = [executor.start(make_job(seed)) for seed in range(3)]
    executor.prefetch([make_job(3)])
    executor.kill(handles[2])
    executor.start(make_job(3))
    assert executor.prefetched() == set()
    assert not executor.has_room(ONE)


def test_job_for_several_gpus_is_not_prefetched(executor: LocalExecutor, make_job: MakeJob) -> None:
    executor.prefetch([make_job(0, TWO), make_job(1)])
    assert executor.prefetched() == {make_job(1).name}


def test_only_named_jobs_stay_prefetched(executor: LocalExecutor, make_job: MakeJob) -> None:
    first, second = make_job(0), make_job(1)
    executor.prefetch([first, second])
    executor.drop_prefetched(keep={second.name, "another"})
    assert executor.prefetched() == {second.name}
    executor.drop_prefetched()
    assert executor.prefetched() == set()


def test_jobs_are_prefetched_only_while_the_hosts_memory_lasts(
    executor: LocalExecutor, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 20 * 2**30)
    executor.prefetch([make_job(0), make_job(1)])
    assert executor.prefetched() == {make_job(0).name}  # always one
    assert executor.notes == []  # how much a run needs is not known yet
    monkeypatch.setattr(host_memory, "peak_bytes", lambda process: 15 * 2**30)
    executor._memory.learn(None)
    executor.prefetch([make_job(0), make_job(1)])
    executor.prefetch([make_job(0), make_job(1)])
    (note,) = executor.notes
    assert "on 1 of 3 GPUs: a run takes up to 15.0 GiB of it, and 20.0 GiB are free" in note
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 30 * 2**30)
    executor.prefetch([make_job(0), make_job(1)])
    assert executor.prefetched() == {make_job(0).name, make_job(1).name}


def test_gpu_that_failed_gets_no_more_jobs(executor: LocalExecutor, make_job: MakeJob) -> None:
    first = executor.start(make_job(0))
    assert executor.leave_out(first, "ECC") == "GPU-a"
    executor.kill(first)
    assert executor.capacity == Resources(2, 2)
    for seed in (1, 2):
        executor.start(make_job(seed))
    assert not executor.has_room(ONE)
    assert executor.notes == ["GPU-a is left out since it failed (ECC); 2 of 3 left."]


def test_last_gpu_is_left_out_at_its_second_failure(tmp_path: Path, make_job: MakeJob) -> None:
    alone = LocalExecutor([DeviceSet(("GPU-a",), 1)], tmp_path)
    try:
        for expected in ("", "GPU-a"):
            worker = alone.start(make_job(0))
            assert alone.leave_out(worker, "ECC") == expected
            alone.kill(worker)
        assert not alone.has_room(ONE)
        assert alone.capacity == Resources(0, 0)
    finally:
        alone.close()


def test_host_memory_is_that_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   90 kB\n")
    assert host_memory.free_bytes(tmp_path, tmp_path) == 90 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("50\n")
    assert host_memory.free_bytes(tmp_path, tmp_path) == 90 * 1024
    (tmp_path / "memory.max").write_text("100\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 20\n")
    assert host_memory.free_bytes(tmp_path, tmp_path) == 70
    assert host_memory.free_bytes(tmp_path / "none", tmp_path / "none") is None


def test_peak_memory_of_a_process_is_read() -> None:
    assert (host_memory.peak_bytes(os.getpid()) or 0) > 2**20
    assert host_memory.peak_bytes(None) is None
