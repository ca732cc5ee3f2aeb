"""The executor `ray` on a real cluster of several nodes on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from misbehaving_methods import Misbehaving

from builders import small_runs
from peft_methods import compare
from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import RunJob
from peft_methods.runs.executors.ray.executor import RayExecutor
from peft_methods.runs.executors.ray.request import RayRequest
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.store import Store
from peft_methods.utils.errors import OptionError
from ray_cluster import RayCluster

on_cluster = pytest.mark.ray
pytestmark = pytest.mark.timeout(1200)  # each process imports everything, on two cores
NODE_SECONDS, SECONDS = 60, 240
ONE_CPU = Resources(0, 1)


# Jobs


class Bench:
    """An executor for the cluster, and jobs for it."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        store = Store(folder / "results")
        store.prepare()
        self.requests = RunRequests(store, RunFolder(store), "cpu", Resources(0, 1))
        self.executor = RayExecutor((), self.requests.folder.path)
        (self._run,) = small_runs(recipe, "head_only")

    def job(self, way: str = "", seed: int = 0, needs: Resources = ONE_CPU) -> RunJob:
        method = Misbehaving(learning_rate=5e-2, way=way)
        run = replace(self._run, method=method, seed=seed)
        return replace(self.requests.run_job(run, {}), needs=needs)

    def last(self, handle: Any) -> RunEvent:
        end = time.monotonic() + SECONDS
        while True:
            assert time.monotonic() < end, "the job did not end"
            for event in self.executor.poll(1):
                if event.handle == handle and not isinstance(event, Progress):
                    return event

    def until_applied(self, handle: Any) -> None:
        end = time.monotonic() + SECONDS
        while "misbehaving_methods.py" not in self.executor.stacks(handle):
            assert time.monotonic() < end, "the job did not begin"
            list(self.executor.poll(0.1))


@pytest.fixture
def bench(ray_nodes: RayCluster, tiny_recipe: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tiny_recipe, tmp_path)
    yield made
    made.executor.close()
    made.requests.remove_scratch()


def ok(event: RunEvent) -> bool:
    assert isinstance(event, Ended)
    assert isinstance(event.done.result, Record)
    return event.done.result.status == "ok"


@on_cluster
def test_job_whose_node_dies_is_lost_and_may_be_retried_elsewhere(
    bench: Bench, ray_nodes: RayCluster
) -> None:
    doomed = ray_nodes.add(cpus=2)
    handle = bench.executor.start(bench.job("hang", needs=Resources(0, 2)))  # fits only there
    bench.until_applied(handle)
    ray_nodes.kill(doomed)
    lost = bench.last(handle)
    assert isinstance(lost, Lost)
    assert (lost.status, lost.transient) == ("crashed", True)
    assert lost.reason.endswith("was lost or preempted, or its worker there was killed")
    bench.executor.kill(handle)
    assert ok(bench.last(bench.executor.start(bench.job())))


@on_cluster
def test_run_with_two_gpus_gets_both_of_one_node(bench: Bench, ray_nodes: RayCluster) -> None:
    """The GPUs are imaginary: Ray counts them, and hides all others from the process."""
    nodes = [ray_nodes.add(gpus=count) for count in (1, 2)]
    pair, cluster = Resources(2, 1), RayRequest().cluster()
    try:
        end = time.monotonic() + NODE_SECONDS
        while not cluster.places(pair):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert cluster.places(pair) == 1
        assert cluster.places(Resources(1, 1)) == 2
        assert RayRequest().largest_node == 1  # core: the GPUs are no real ones
        handle = bench.executor.start(bench.job("raise", needs=pair))
        assert not bench.executor.has_room(pair)
        bench.last(handle)
        assert len(handle.place.gpus) == 2
        bench.executor.kill(handle)
    finally:
        for node in nodes:
            ray_nodes.kill(node)


@on_cluster
def test_full_object_store_stops_nothing(bench: Bench, ray_nodes: RayCluster) -> None:
    import numpy as np
    import ray

    @ray.remote(num_cpus=0)
    def fill() -> Any:
        return np.zeros(30 * 2**20, dtype=np.uint8)

    held = [fill.remote() for _ in range(12)]  # several times what the nodes' stores hold
    ray.wait(held, num_returns=len(held), timeout=60, fetch_local=False)
    assert ok(bench.last(bench.executor.start(bench.job())))
    assert held


@on_cluster
def test_nothing_stays_on_the_nodes(bench: Bench, ray_nodes: RayCluster) -> None:
    handle = bench.executor.start(bench.job("hang"))
    bench.until_applied(handle)
    assert ok(bench.last(bench.executor.start(bench.job(seed=1))))
    assert ray_nodes.scratch_folders()
    bench.executor.close()
    assert ray_nodes.scratch_folders() == []


@on_cluster
@pytest.mark.parametrize("seconds", [0, 0.01, 0.05])
def test_worker_that_is_asked_for_a_further_job_leaves_nothing(
    bench: Bench, ray_nodes: RayCluster, seconds: float
) -> None:
    """The session may end before the worker has answered."""
    first = bench.executor.start(bench.job())
    assert ok(bench.last(first))
    bench.executor.kill(first)
    bench.executor.start(bench.job(seed=1))
    time.sleep(seconds)
    bench.executor.close()
    assert ray_nodes.scratch_folders() == []


@on_cluster
def test_worker_that_an_interrupt_left_without_a_job_leaves_nothing(
    bench: Bench, ray_nodes: RayCluster
) -> None:
    """An interrupt may come after a worker was chosen, and before the executor has its job."""
    first = bench.executor.start(bench.job())
    assert ok(bench.last(first))
    bench.executor.kill(first)
    assert bench.executor._workers.take(ONE_CPU) == first.worker
    bench.executor.close()
    assert ray_nodes.scratch_folders() == []


@on_cluster
def test_worker_whose_process_died_leaves_nothing(bench: Bench, ray_nodes: RayCluster) -> None:
    first = bench.executor.start(bench.job("die"))
    assert isinstance(bench.last(first), Lost)
    bench.executor.kill(first)
    assert ray_nodes.scratch_folders() == []


# Sessions


@on_cluster
def test_prerequisites_and_models_travel_and_the_second_session_reuses_all(
    ray_nodes: RayCluster, tiny_recipe: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "methods": ["adapter_fusion"],
        "seeds": 1,
        "results": tmp_path / "results",
        "save_models": tmp_path / "models",
        "executor": "ray",
        "ray_address": ray_nodes.address,
        "checkpoint": True,
        "progress": False,
    }
    records = compare(str(tiny_recipe), **arguments).records
    assert [record.status for record in records] == ["ok"] * 3, [r.message for r in records]
    store = Store(tmp_path / "results")
    assert [store.damage(record) for record in records] == [""] * 3
    assert sorted(path.suffix for path in store.folder.glob("*.*")) == [
        *[".json"] * 3, ".npz", *[".safetensors"] * 2
    ]  # fmt: skip
    (model,) = (tmp_path / "models").iterdir()
    assert (model / "fingerprint.txt").read_text(encoding="utf-8") == records[0].fingerprint
    assert not list(store.folder.glob("checkpoints/*/*"))
    again = compare(str(tiny_recipe), **arguments).records
    assert all(record.reused for record in again)


@on_cluster
def test_data_that_a_node_lacks_are_named_with_the_node(
    ray_nodes: RayCluster, tiny_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=r"data.source: /nowhere/data does not exist on node ") as e:
        compare(
            str(tiny_recipe),
            methods=["head_only"],
            settings=['data.source="/nowhere/data"'],
            results=tmp_path,
            executor="ray",
            progress=False,
        )
    assert "\n" not in str(e.value)


# Nodes that do not fit


@pytest.fixture
def new_connection(ray_nodes: RayCluster) -> Iterator[RayCluster]:
    """A process that joins the cluster looks at its nodes once."""
    import ray

    ray.shutdown()
    yield ray_nodes
    ray.shutdown()


def old_peft(folder: Path) -> str:
    """Return an entry of PYTHONPATH with which a node claims to have an old version."""
    info = folder / "peft-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.0.1\n")
    return str(folder)


@on_cluster
def test_node_with_other_versions_is_refused_by_name(
    new_connection: RayCluster, tmp_path: Path
) -> None:
    node = new_connection.add(PYTHONPATH=old_peft(tmp_path / "site"))
    try:
        with pytest.raises(OptionError) as caught:
            RayRequest().slots()
        assert f"node {socket.gethostname()} has peft 0.0.1, the session " in str(caught.value)
    finally:
        new_connection.kill(node)


@on_cluster
def test_node_with_other_versions_that_joins_later_is_not_used(
    new_connection: RayCluster, tmp_path: Path
) -> None:
    cluster = RayRequest().cluster()
    before = cluster.places(Resources(0, 1))
    node = new_connection.add(cpus=8, PYTHONPATH=old_peft(tmp_path / "site"))
    try:
        end = time.monotonic() + NODE_SECONDS
        while not cluster.warnings:
            assert time.monotonic() < end
            assert cluster.places(Resources(0, 1)) == before
            time.sleep(0.1)
        assert "has peft 0.0.1" in cluster.warnings[0]
        assert cluster.warnings[0].endswith("so it is not used.")
    finally:
        new_connection.kill(node)


@on_cluster
def test_handler_of_sigterm_stays(new_connection: RayCluster) -> None:
    import os
    import signal

    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        RayRequest().cluster()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
