"""The live line: which cells, which epoch, how much time is left. Plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from peft_methods.cells import Cell, Preparation
from peft_methods.execution.estimating import expected_seconds, in_words
from peft_methods.execution.local import Event
from peft_methods.metrics import METRICS


class Progress:
    """Turns events into text. `show` takes (text, lasting): a lasting line stays, another is written over.

    The time left is what is expected of the cells to come, scaled by how wrong that was for those that ended.
    """

    def __init__(self, show: Callable[[str, bool], None], *, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._workers, self._clock = show, workers, clock
        self._expected: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._running: dict[str, str] = {}
        self._reused: set[str] = set()

    def plan(self, cells: Sequence[Cell], preparation: Preparation) -> None:
        """Cells of one recipe that will run, and their stages but those that an earlier run left."""
        for cell in cells:
            for one in (one for one in (*cell.stages, cell) if one.key not in self._reused):
                self._expected[one.key] = expected_seconds(one, preparation)

    def __call__(self, event: Event) -> None:
        """Watch an executor."""
        key, now = event.cell.key, self._clock()
        if event.record is not None and event.record.reused:
            self._reused.add(key)
            self._show(f"{event.cell.label}: reused: {_outcome(event)}", True)
            return
        if event.record is not None:
            self._took[key] = now - self._started.get(key, now)
            self._running.pop(key, None)
            self._show(f"{self._place()} {event.cell.label}: {_outcome(event)}", True)
            return
        if event.failed:
            self._running.pop(key, None)
            self._show(f"{self._place()} {event.cell.label}: {event.failed}; it is tried again", True)
            return
        if event.news is None:
            self._started[key] = now
        self._running[key] = f"{event.cell.label} {_where(event)}"
        self._show(f"{self._place()} {' | '.join(self._running.values())}", False)

    def _place(self) -> str:
        return f"[{len(self._took)}/{len(self._expected)}{self._left()}]"

    def _left(self) -> str:
        expected_of_ended = sum(self._expected.get(key, 0.0) for key in self._took)
        pace = sum(self._took.values()) / expected_of_ended if expected_of_ended else 1.0
        running = sum(min(self._clock() - self._started[key], self._expected[key] * pace) for key in self._running)
        left = (sum(self._expected.values()) - expected_of_ended) * pace - running
        return f", {in_words(max(0.0, left) / self._workers)} left" if len(self._took) < len(self._expected) else ""


def _where(event: Event) -> str:
    news = event.news
    if news is None:
        return "starting"
    epoch = f"epoch {news['epoch']}/{news['epochs']}"
    if "step" in news:
        return f"{epoch} step {news['step']}/{news['steps']}"
    accuracy = news["validation_accuracy"]
    return f"{epoch} done" if accuracy is None else f"{epoch} validation {accuracy:.3f}"


def _outcome(event: Event) -> str:
    record = event.record
    assert record is not None
    if record.status != "ok":
        return f"{record.status}: {record.message}"
    name = "validation_accuracy" if record.is_source else "accuracy"
    value, seconds = record.metrics.get(name), record.metrics.get("train_seconds") or 0.0
    quality = "" if value is None else f"{METRICS[name].title.lower()} {value:.3f}, "
    return f"{quality}trained {in_words(seconds)}"
