"""Clocks of training steps, by the host's time or by CUDA events."""

from __future__ import annotations

import itertools
import time

import torch


class HostSteps:
    """Seconds between the ends of successive training steps, by the host's clock.

    `earlier` holds the seconds measured by the process that trained the first epochs.
    """

    def __init__(self) -> None:
        self.earlier: list[float] = []
        self._seconds: list[float] = []
        self._last = 0.0

    def begin(self) -> None:
        """Start the clock at the first step."""
        self._last = time.perf_counter()

    def end_of_step(self) -> None:
        """Record the end of a step."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now

    def seconds(self) -> list[float]:
        """Return the seconds of every step, earlier ones first."""
        return self.earlier + self._seconds


class CudaSteps:
    """Seconds between the ends of successive training steps, by CUDA events.

    Recording an event takes microseconds and does not synchronise. The events are read at the end.
    """

    def __init__(self) -> None:
        self.earlier: list[float] = []
        self._intervals: list[list[torch.cuda.Event]] = []

    def begin(self) -> None:
        """Start the clock at the first step."""
        self._intervals.append([])
        self.end_of_step()

    def end_of_step(self) -> None:
        """Record the end of a step."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._intervals[-1].append(event)

    def seconds(self) -> list[float]:
        """Return the seconds of every step, earlier ones first."""
        torch.cuda.synchronize()
        return self.earlier + [
            a.elapsed_time(b) / 1000
            for events in self._intervals
            for a, b in itertools.pairwise(events)
        ]
