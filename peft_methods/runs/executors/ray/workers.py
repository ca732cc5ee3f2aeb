"""The session's workers on the nodes of a cluster: made for a job, and kept for the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.ray.cluster import Cluster
from peft_methods.runs.executors.ray.node import NodeWorker

CLOSE_SECONDS = 8.0  # for workers to end their processes and remove their folders
CALLS = 4  # that a worker answers at the same time


class Workers:
    """Ray actors, each with the devices of one job, which Ray places on one node that has them."""

    def __init__(self, cluster: Cluster) -> None:
        self._ray, self._cluster = cluster.ray, cluster
        self._idle: list[tuple[Any, Resources, float]] = []  # with the time of its last job

    def take(self, needs: Resources) -> Any:
        """Return a worker: an idle one if there is one, whose imports are done."""
        for one in self._idle:
            if one[1] == needs:
                self._idle.remove(one)
                return one[0]
        self.close_idle(0)  # of other sizes: they would stand in the way
        return (
            self._ray.remote(NodeWorker)
            .options(
                num_cpus=needs.threads,
                num_gpus=needs.gpus,
                label_selector=self._cluster.selector(),
                max_concurrency=CALLS,
                max_restarts=0,
            )
            .remote()
        )

    def give_back(self, worker: Any, needs: Resources) -> None:
        """Keep a worker for another job."""
        self._idle.append((worker, needs, time.monotonic()))

    def close_idle(self, seconds: float) -> None:
        """End the workers that have had no job for so long."""
        old = [one for one in self._idle if time.monotonic() - one[2] >= seconds]
        self._idle = [one for one in self._idle if one not in old]
        self.close([worker for worker, _, _ in old])

    def close(self, workers: Sequence[Any]) -> None:
        """End workers with their processes and folders; those that do not answer, by force."""
        closing = [worker.close.remote() for worker in workers]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for worker in workers:
            self._ray.kill(worker)
