"""Progress: how many runs have ended, the state of each active run, and the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from peft_methods.models.bundled import model_notice
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.events import Event
from peft_methods.runs.executors.registry import LOCAL
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import Display
from peft_methods.runs.progress.line_limit import LineLimit
from peft_methods.runs.progress.time_left import TimeLeft
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.metrics import in_seconds
from peft_methods.tasks.registry import task_of
from peft_methods.utils.sanitize import visible
from peft_methods.utils.units import format_duration

DRAWING_INTERVAL = 0.1  # at least so many seconds between two updates of the live lines
NARROWEST_LABEL = 12
MOST_LINES = 20  # permanent lines about runs, a second; further ones are counted
MANY = 20  # active runs: a change of one of them need not be shown at once
ESTIMATE_INTERVAL = 1.0  # of many runs, at least so many seconds between two estimates
MOST_DRAWN = 16  # active runs: with more, a terminal would not show the line of the session


class Progress:
    """A watcher that turns an executor's events into lines.

    With live lines: one for the session and one for each active run. Permanent lines report each
    end and, without live lines, each start.
    """

    def __init__(
        self, display: Display, *, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display, self._clock = display, clock
        self._time = TimeLeft(workers, clock)
        self._running: dict[str, tuple[RunSpec, dict[str, Any]]] = {}
        self._waiting: set[str] = set()  # for a machine of a cluster
        self._drawn = self._estimated = float("-inf")
        self._seconds_left = 0.0
        self._limit = LineLimit(MOST_LINES, clock)

    def plan(self, runs: Sequence[RunSpec], preparation: PreparedRecipe) -> None:
        """Add runs of one recipe and their prerequisites, except those that are reused."""
        self._time.plan(runs, preparation)

    def announce(self, lines: Sequence[str]) -> None:
        """Show permanent lines before anything is trained."""
        for line in lines:
            self._say(f"peft-methods: {line}")

    def show_activity(self, what: str) -> None:
        """Show an activity that belongs to no run."""
        self._display.draw([what])

    def show_preparation(self, recipe: Recipe, executor: str = LOCAL) -> None:
        """Show that a recipe is checked, and a permanent line if its model must be fetched."""
        if notice := model_notice(recipe.model.source):
            self._say(notice)
        where = "" if executor == LOCAL else f" through {executor}, where this may wait its turn"
        self.show_activity(f"{recipe.name}: reading data and model{where}")

    @contextlib.contextmanager
    def showing(self, *, last: bool = True) -> Iterator[None]:
        """Context manager: show live lines.

        `last`: other code writes to the terminal next, so hand it over.
        """
        try:
            yield
        except BaseException:
            self._display.draw(())  # a message follows, not the next test's line
            raise
        self._say_left_out()
        if last:
            self._display.hand_over()
        else:
            self._display.draw(())

    def __call__(self, event: Event) -> None:
        """Handle an executor's event."""
        key, now = event.run.key, self._clock()
        (self._waiting.add if event.waits else self._waiting.discard)(key)
        if event.news is not None:
            self._time.update(key, event.news)
            known = self._running[key][1]
            known["activity"] = None
            known.update(event.news)
        elif event.record is not None and event.record.reused:
            self._time.reuse(key)
            self._report(event, "reused")
            return
        elif event.record is not None:
            self._time.end(key, ok=event.record.status == "ok")
            self._running.pop(key, None)
            self._report(event, event.record.status)
        elif event.failed:
            self._time.forget(key)
            self._time.workers = event.workers or self._time.workers
            self._running.pop(key, None)
            self._report(event, "retried")
        elif event.waits:
            if not self._display.columns:
                self._report(event, "waits for a machine")
        else:
            self._time.start(key)
            self._running[key] = event.run, {}
            if not self._display.columns:
                self._report(event, "started")
        soon = not event.news and len(self._running) <= MANY
        if now - self._drawn >= DRAWING_INTERVAL or soon:
            self._drawn = now
            self._display.draw(self._lines())

    def _report(self, event: Event, about: str) -> None:
        """Write a permanent line about a run, unless there are too many."""
        if not self._limit.allows(about):
            return
        self._say_left_out()
        record = event.record
        if record is not None and record.reused:
            self._say(f"{event.run.label}: reused: {describe_result(record)}")
            return
        what = about if record is None else describe_result(record)
        if event.failed:
            what = f"{event.failed}; it is retried"
        self._say(f"{self._place()} {event.run.label}: {what}")

    def _say_left_out(self) -> None:
        if text := self._limit.left_out():
            self._say(f"{self._place()} {text}")

    def _say(self, line: str) -> None:
        self._display.say(visible(line))

    def _lines(self) -> list[str]:
        """Format the session's line and one per active run, as wide as the display."""
        width = self._display.columns
        if not width:
            return []
        reused = f" ({len(self._time.reused)} more reused)" if self._time.reused else ""
        done = f"{len(self._time.ended)} of {len(self._time.expected)} runs done{reused}"
        waiting = [f"{len(self._waiting)} waiting for a machine"] * bool(self._waiting)
        head = done, f"{len(self._running)} active", *waiting, *self._left()
        shown = islice(self._running.values(), MOST_DRAWN)
        more = len(self._running) - MOST_DRAWN
        return [
            fitted(head[0], head[1:], width, between=" · "),
            *(visible(fitted(run.label, describe_progress(news), width)) for run, news in shown),
            *([f"and {more} more"[:width]] if more > 0 else []),
        ]

    def _place(self) -> str:
        return (
            f"[{', '.join([f'{len(self._time.ended)}/{len(self._time.expected)}', *self._left()])}]"
        )

    def _left(self) -> list[str]:
        """Format '4 min 10 s left'; empty when all runs have ended."""
        if len(self._time.ended) >= len(self._time.expected):
            return []
        now = self._clock()
        if now - self._estimated >= ESTIMATE_INTERVAL or len(self._running) <= MANY:
            self._estimated, self._seconds_left = now, self._time.seconds()
        return [f"{format_duration(self._seconds_left)} left"]


def fitted(name: str, parts: Sequence[str], width: int, *, between: str = "  ") -> str:
    """Join the name and as many of the first parts as fit into `width`.

    A name that is too long even for the first part is shortened in the middle.
    """
    kept = list(parts)
    while len(kept) > 1 and len(between.join([name, *kept])) > width:
        kept.pop()
    room = max(NARROWEST_LABEL, width - len(between.join(["", *kept])))
    if len(name) > room:
        name = f"{name[: room - room // 2 - 1]}…{name[len(name) - room // 2 :]}"
    return between.join([name, *kept])[:width]


def describe_progress(news: dict[str, Any]) -> list[str]:
    """Describe the state of an active run, the most important part first.

    The parts: current activity, epoch, step, speed, loss of the last epoch, memory.
    """
    parts = [str(news["activity"])] if news.get("activity") else []
    if "epoch" in news:
        parts += [f"epoch {news['epoch']}/{news['epochs']}"] + [
            f"step {news['step']}/{news['steps']}"
        ] * (not parts)
    if (rate := news.get("samples_per_second")) is not None:
        parts.append(f"{rate:,.1f}/s")
    if (loss := news.get("train_loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if memory := news.get("peak_memory_bytes"):
        parts.append(f"{memory / 2**20:,.0f} MiB")
    return parts or ["starting"]


def describe_result(record: Record) -> str:
    """Describe a run's result in one line: the main metrics, or why there are none."""
    if record.status != "ok":
        return f"{record.status}: {record.message}"
    task = task_of(record.spec.recipe)
    of_role = task.metrics if record.role == "main" else task.further_metrics
    name = next((metric.name for metric in of_role), "")
    metrics = record.metrics
    parts = [
        f"{METRICS[name].in_text} {value:.3f}" for value in [metrics.get(name)] if value is not None
    ]
    losses = [loss for epoch in record.epochs if (loss := epoch.get("train_loss")) is not None]
    parts += [f"loss {losses[-1]:.3f}"] * bool(losses)
    for name in ("samples_per_second", "peak_memory_bytes"):
        parts += [METRICS[name].format(value) for value in [metrics.get(name)] if value is not None]
    if (seconds := metrics.get("train_seconds")) is not None:
        parts.append(
            f"trained {format_duration(seconds) if seconds >= 60 else in_seconds(seconds)}"
        )
    return ", ".join(parts)
