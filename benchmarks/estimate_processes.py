"""Measure cases in processes of their own: a step that cannot be captured spoils later captures."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from estimate_cases import Case


class OwnProcesses:
    """Measures one case after another. While one runs, the next process imports what it needs."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._context = multiprocessing.get_context("spawn")
        self._next = self._started()

    def measure(self, case: Case) -> dict[str, Any]:
        """Return a case's memory in bytes and its steps in seconds, or why it failed."""
        started = time.perf_counter()
        (process, pipe), self._next = self._next, self._started()
        found: dict[str, Any]
        try:
            pipe.send(case)
            found = pipe.recv()
        except (EOFError, BrokenPipeError):
            process.join()
            seconds = round(time.perf_counter() - started, 2)
            message = f"its process ended with exit status {process.exitcode}"
            found = {"case": case.to_json(), "status": "failed", "message": message}
            found |= {"seconds": seconds, "left": [], "device_failed": ""}
        process.join()
        return found | {"device_failed": ""}  # the next process starts over

    def close(self) -> None:
        """End the process that waits for a case."""
        process, pipe = self._next
        pipe.close()
        process.join()

    def _started(self) -> tuple[Any, Connection]:
        own, other = self._context.Pipe()
        process = self._context.Process(target=_measure_one, args=(self._device, other))
        process.start()
        other.close()
        return process, own


def _measure_one(device: str, pipe: Connection) -> None:
    """Wait for a case, measure it, and send what was found. Without a case do nothing."""
    from estimate_measuring import Measuring, check_one_gpu

    from peft_methods.runs.executors.worker import set_up_compiler

    try:
        case = pipe.recv()
    except EOFError:
        return
    set_up_compiler()
    measuring = Measuring(device)  # before CUDA is used: it reads what the GPU holds already
    check_one_gpu()
    pipe.send(measuring.measure(case))
