"""A run that is being logged to trackers."""

from __future__ import annotations

import contextlib
import select
import time
from collections import deque

from peft_methods.runs.executors.process import Worker
from peft_methods.runs.tracking.tracker_process import End, Entry, Run

FLUSH_SECONDS = 0.05  # between two attempts to send pending messages


class LoggedRun:
    """A run that is being logged."""

    def __init__(self, run: Run, worker: Worker) -> None:
        self.run, self.step, self._worker = run, 0, worker
        self._unsent: deque[Run | Entry | End] = deque()
        self.send(run)

    def send(self, message: Run | Entry | End) -> None:
        """Send without waiting. Messages that the process cannot take yet are sent later.

        The process may still be importing, or hang.
        """
        if isinstance(message, Entry):
            self.step = message.step
        self._unsent.append(message)
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):  # it has died: `failure` reports that
            while self._unsent and select.select([], [self._worker.connection], [], 0)[1]:
                self._worker.connection.send(self._unsent.popleft())

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether the process has ended, waiting up to `seconds`."""
        until = time.monotonic() + seconds
        while True:
            self._flush()
            left = max(0.0, until - time.monotonic())
            ended = self._worker.has_ended(min(left, FLUSH_SECONDS) if self._unsent else left)
            if ended or time.monotonic() >= until:
                return ended

    def failure(self) -> str:
        """Return why the log of an ended run is incomplete, or ''."""
        with contextlib.suppress(OSError, EOFError):
            if self._worker.connection.poll():
                return str(self._worker.connection.recv())
        return "" if self._worker.ended_well() else self._worker.cause_of_death()

    def kill(self) -> None:
        """Kill the process."""
        self._worker.kill()
