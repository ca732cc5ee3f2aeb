"""The live line: which cell, which epoch, how much time is left. Plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from peft_methods.cells import Cell, Preparation
from peft_methods.execution.estimating import expected_seconds, in_words
from peft_methods.execution.local import Event
from peft_methods.measuring import METRICS


class Progress:
    """Turns events into text. `show` takes (text, lasting): a lasting line stays, another is written over.

    The time left is what is expected of the cells to come, scaled by how wrong that was for those that ended.
    """

    def __init__(self, show: Callable[[str, bool], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._expected: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._started = 0.0

    def plan(self, cells: Sequence[Cell], preparation: Preparation) -> None:
        """Cells of one recipe that will run."""
        for cell in cells:
            for one in (*cell.stages, cell):
                self._expected[one.key] = expected_seconds(one, preparation)

    def __call__(self, event: Event) -> None:
        """Watch an executor."""
        if event.record is not None:
            self._ended[event.cell.key] = self._clock() - self._started
            self._show(f"{self._place()} {event.cell.label}: {_outcome(event)}{self._left(0.0)}", True)
        elif event.news is None:
            self._started = self._clock()
            self._show(f"{self._place(1)} {event.cell.label}: starting{self._left(0.0)}", False)
        else:
            self._show(f"{self._place(1)} {event.cell.label}: {_where(event)}{self._left(self._clock() - self._started)}", False)

    def _place(self, ahead: int = 0) -> str:
        return f"[{len(self._ended) + ahead}/{len(self._expected)}]"

    def _left(self, elapsed: float) -> str:
        done = sum(self._expected.get(key, 0.0) for key in self._ended)
        pace = sum(self._ended.values()) / done if done else 1.0
        left = max(0.0, (sum(self._expected.values()) - done) * pace - elapsed)
        return f", {in_words(left)} left" if len(self._ended) < len(self._expected) else ""


def _where(event: Event) -> str:
    news = event.news or {}
    if "validation_accuracy" in news:
        return f"epoch {news['epoch']}/{news['epochs']} validation accuracy {news['validation_accuracy']:.3f}"
    return f"epoch {news['epoch']}/{news['epochs']} step {news['step']}/{news['steps']}"


def _outcome(event: Event) -> str:
    record = event.record
    assert record is not None
    if record.status != "ok":
        return f"{record.status}: {record.message}"
    name = "validation_accuracy" if record.is_source else "accuracy"
    value, seconds = record.metrics.get(name), record.metrics.get("train_seconds") or 0.0
    quality = "" if value is None else f"{METRICS[name].title.lower()} {value:.3f}, "
    return f"{quality}trained {in_words(seconds)}"
