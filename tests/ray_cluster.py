"""A Ray cluster of several nodes on this machine, for tests of the executor `ray`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[1]
NODES = 2
STORE_BYTES = 80 * 2**20  # the smallest object store that Ray allows


class RayCluster:
    """A cluster whose head runs nothing. `scratch` is where its nodes have temporary files."""

    def __init__(self, scratch: Path) -> None:
        from ray.cluster_utils import Cluster

        self.scratch = scratch
        self._environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "TMPDIR": str(scratch),
            "RAY_worker_niceness": "0",
        }
        self._cluster = Cluster()
        self.add(cpus=0)
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []
        self.complete()

    def add(self, cpus: int = 1, gpus: int = 0, **environment: str) -> Any:
        """Start a node."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self._environment, **environment}.items():
                patch.setenv(name, value)
            return self._cluster.add_node(
                num_cpus=cpus, num_gpus=gpus, object_store_memory=STORE_BYTES
            )

    def kill(self, node: Any) -> None:
        """Kill a node with all its processes, as a power failure does."""
        processes = [info.process.pid for group in node.all_processes.values() for info in group]
        victims = [psutil.Process(pid) for pid in processes]
        for victim in [*victims, *(child for one in victims for child in one.children(True))]:
            if victim.is_running():
                victim.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def complete(self) -> None:
        """Start the nodes that are missing: there should be two with one CPU each."""
        while len(self._nodes) < NODES:
            self._nodes.append(self.add())

    def kill_busy(self, rng: random.Random | None = None) -> None:
        """Kill one of the two nodes. A session with enough runs keeps both busy."""
        self.kill(self._nodes.pop(rng.randrange(NODES) if rng else 0))

    def scratch_folders(self) -> list[Path]:
        """Return the folders that workers have on the nodes."""
        return list(self.scratch.glob("peft-methods-*/run-*"))

    def end(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def ray_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster with two nodes of one CPU each. A test that kills nodes adds others before."""
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    cluster = RayCluster(tmp_path_factory.mktemp("nodes"))
    yield cluster
    ray.shutdown()
    cluster.end()


@pytest.fixture
def ray_nodes(ray_of_session: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The session's cluster, which the executor finds by itself."""
    monkeypatch.setenv("RAY_ADDRESS", ray_of_session.address)
    return ray_of_session
