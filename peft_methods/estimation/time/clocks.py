"""Clocks of small computations: on the host, and on a GPU without the host's launches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

ROUNDS = 3
SECONDS = 0.02  # that a round takes at least, so that the clock's steps do not matter
MOST = 100  # repetitions in a round


class Clock(Protocol):
    """Measures how long a computation takes."""

    def seconds(self, run: Callable[[], Any]) -> float:
        """Return the seconds of one call: those of the fastest round, divided by its calls.

        Others may use the same device, and can only make a round slower.
        """
        ...


class HostClock:
    """Measures what runs on the host."""

    def seconds(self, run: Callable[[], Any]) -> float:
        """Return the seconds of one call."""
        run()
        calls = 1
        while (found := _timed(run, calls)) < SECONDS and calls < MOST:
            calls = min(MOST, calls * 4)
        return min(found, *(_timed(run, calls) for _ in range(ROUNDS - 1))) / calls


class CudaClock:
    """Measures what runs on the current GPU, by events around replays of a CUDA graph.

    Where a computation cannot be captured, it is launched by the host.
    """

    def seconds(self, run: Callable[[], Any]) -> float:
        """Return the seconds of one call."""
        for _ in range(3):
            run()
        once = self._elapsed(run)
        calls = max(1, min(MOST, int(SECONDS / max(once, 1e-6))))
        replay = self._captured(run, calls) if calls > 1 else None
        if replay is None:
            return min(self._elapsed(run, calls) for _ in range(ROUNDS)) / calls
        replay()
        return min(self._elapsed(replay) for _ in range(ROUNDS)) / calls

    def _captured(self, run: Callable[[], Any], calls: int) -> Callable[[], Any] | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                for _ in range(calls):
                    run()
        except RuntimeError:
            torch.cuda.synchronize()
            return None
        return graph.replay

    def _elapsed(self, run: Callable[[], Any], calls: int = 1) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000


def _timed(run: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - started
