"""The session's workers on the nodes of a cluster: made for a job, and kept for the next one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.ray.cluster import Cluster
from peft_methods.runs.executors.ray.node import NodeWorker

CLOSE_SECONDS = 8.0  # for workers to end their processes and remove their folders
CALLS = 4  # that a worker answers at the same time


class Workers:
    """Ray actors, each with the devices of one job, which Ray places on one node that has them.

    Those that have had a job are remembered until they are ended, since they have a folder on their
    node: an interrupt may come between any two lines of the session.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._ray, self._cluster = cluster.ray, cluster
        self._idle: list[tuple[Any, Resources, float]] = []  # with the time of its last job
        self._used: list[Any] = []

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
        if not self.had_a_job(worker):
            self._used.append(worker)
        if all(one[0] != worker for one in self._idle):
            self._idle.append((worker, needs, time.monotonic()))

    def had_a_job(self, worker: Any) -> bool:
        """Whether a worker was given back before."""
        return worker in self._used

    def close_idle(self, seconds: float) -> None:
        """End the workers that have had no job for so long."""
        old = [one for one in self._idle if time.monotonic() - one[2] >= seconds]
        self._idle = [one for one in self._idle if one not in old]
        self.end([worker for worker, _, _ in old])

    def close(self) -> None:
        """End all workers that were given back, also those that an interrupt left without a job."""
        self._idle.clear()
        self.end(list(self._used))

    def end(self, workers: Sequence[Any]) -> None:
        """Let workers remove their folders, and end them."""
        self._answered({worker.close.remote(): worker for worker in workers})
        for worker in workers:
            self.kill(worker)

    def kill(self, worker: Any) -> None:
        """End a worker at once."""
        self._ray.kill(worker)
        self._used = [one for one in self._used if one != worker]

    def stop(self, workers: Sequence[Any]) -> list[Any]:
        """End the processes of workers and remove their files; return the workers that did."""
        return self._answered({worker.stop.remote(): worker for worker in workers})

    def _answered(self, calls: dict[Any, Any]) -> list[Any]:
        """Wait for calls of workers; return those that answered."""
        if not calls:
            return []
        done, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=CLOSE_SECONDS)
        answered = []
        for call in done:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.get(call)
                answered.append(calls[call])
        return answered
