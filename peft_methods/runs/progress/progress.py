"""Progress: how many runs have ended, the state of each active run, and the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from peft_methods.models.bundled import model_notice
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.events import Event
from peft_methods.runs.executors.registry import LOCAL
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import Display
from peft_methods.runs.progress.line_limit import LineLimit
from peft_methods.runs.progress.live import Live, text_of
from peft_methods.runs.progress.plan_line import plan_lines
from peft_methods.runs.progress.results_table import ResultsTable
from peft_methods.runs.progress.time_left import TimeLeft
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.metrics import in_seconds
from peft_methods.tasks.registry import task_of
from peft_methods.utils.sanitize import visible
from peft_methods.utils.units import format_duration
from peft_methods.utils.words import counted

DRAWING_INTERVAL = 0.25  # at least so many seconds between two updates of the live lines
MOST_LINES = 20  # permanent lines about runs, a second; further ones are counted
MANY = 20  # active runs: a change of one of them need not be shown at once
ESTIMATE_INTERVAL = 1.0  # of many runs, at least so many seconds between two estimates
MOST_DRAWN = 16  # active runs: with more, a terminal would not show the line of the session


class Progress:
    """A watcher that turns an executor's events into what a display shows.

    A live display has a line for the session, the table of methods as it fills, and a line for each
    active run. Permanent lines report each end and, without a live display, each start.
    """

    def __init__(
        self,
        display: Display,
        *,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
        groups: Iterable[RunGroup] = (),
    ) -> None:
        self._display, self._clock = display, clock
        self._time = TimeLeft(workers, clock)
        self._running: dict[str, tuple[RunSpec, dict[str, Any]]] = {}
        self._waiting: set[str] = set()  # for a machine of a cluster
        self._drawn = self._estimated = float("-inf")
        self._seconds_left = 0.0
        self._limit = LineLimit(MOST_LINES, clock)
        self._table = ResultsTable()
        self.expect(groups)
        self._left = 0  # runs that had ended when the table was left on the screen

    def plan(self, runs: Sequence[RunSpec], preparation: PreparedRecipe) -> None:
        """Add runs of one recipe and their prerequisites, except those that are reused."""
        self._time.plan(runs, preparation)

    def expect(self, groups: Iterable[RunGroup]) -> None:
        """Give the table the rows of these methods, in this order."""
        self._table.expect(groups)

    def without_result(self, record: Record) -> None:
        """Add a run to the table that was given up before it was submitted."""
        self._table.add(record.spec, record)

    def announce(self, lines: Sequence[str]) -> None:
        """Show permanent lines before anything is trained."""
        for line in lines:
            self._say(f"peft-methods: {line}")

    def announce_tuning(self, trials: int, groups: Sequence[RunGroup]) -> None:
        """Show that tuning precedes the runs, if there are several methods."""
        if len(groups) > 1:
            each = f"{counted(trials, 'trial')} for each of {len(groups)} methods"
            self.announce([f"tuning comes first, with {each}; the plan of the runs follows."])

    def announce_plan(self, groups: Sequence[RunGroup], *, gpus: int = 0) -> None:
        """Show the plan before anything is trained, if it has several methods.

        `groups` are in the order in which they start; `gpus` is how many GPUs the session has.
        """
        waiting = [g for g in groups if any(self._time.is_left(run.key) for run in g.runs)]
        if len(waiting) > 1:
            self.announce(plan_lines(waiting, self._time, gpus))

    def show_activity(self, what: str) -> None:
        """Show an activity that belongs to no run."""
        self._display.draw([what])

    def show_estimates(self, ended: int, count: int, name: str) -> None:
        """Show how many methods of ended runs are estimated, and one that is next.

        Without live lines, one line at the start must do.
        """
        left_out = "Ctrl-C leaves the rest out"
        if self._display.columns:
            self.show_activity(f"estimating method {ended + 1} of {count}: {name} ({left_out})")
        elif not ended:
            self._say(f"peft-methods: estimating {counted(count, 'method')} ({left_out})")

    def show_preparation(
        self, recipe: Recipe, executor: str = LOCAL, *, is_dry: bool = False
    ) -> None:
        """Show that a recipe is checked, and a permanent line if its model must be fetched."""
        if notice := model_notice(recipe.model.source):
            self._say(notice)
        where = "" if executor == LOCAL else f" through {executor}, where this may wait its turn"
        model = "config" if is_dry else "model"
        self.show_activity(f"{recipe.name}: reading data and {model}{where}")

    @contextlib.contextmanager
    def showing(self, *, last: bool = True) -> Iterator[None]:
        """Context manager: show live lines.

        `last`: other code writes to the terminal next, so hand it over.
        """
        with self.leaving():
            if self._running:
                self._draw()
            yield
        self._say_left_out()
        if last:
            self._display.hand_over()
        else:
            self._display.draw(())

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """Context manager: an error or an interrupt leaves the table so far on a live display."""
        try:
            yield
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Leave the table as it is on a live display, because the session is ended early."""
        self._display.draw(())  # a message follows, not the next test's line
        ended = self._table.ended
        if not self._display.columns or ended == self._left:
            return
        self._left = ended
        for line in text_of(self._live().without_runs(), self._display.columns):
            self._display.say(line, routine=True)

    def __call__(self, event: Event) -> None:
        """Handle an executor's event."""
        key, now = event.run.key, self._clock()
        (self._waiting.add if event.waits else self._waiting.discard)(key)
        if event.record is not None:
            self._table.add(event.run, event.record)
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
            self._table.start(event.run)
            self._running[key] = event.run, {}
            if not self._display.columns:
                self._report(event, "started")
        soon = not event.news and len(self._running) <= MANY
        if now - self._drawn >= DRAWING_INTERVAL or soon:
            self._draw()

    def _report(self, event: Event, about: str) -> None:
        """Write a permanent line about a run, unless there are too many."""
        if not self._limit.allows(about):
            return
        self._say_left_out()
        record = event.record
        if record is not None and record.reused:
            self._say(f"{event.run.label}: reused: {describe_result(record)}", routine=True)
            return
        what = about if record is None else describe_result(record)
        if event.failed:
            what = f"{event.failed}; it is retried"
        routine = not event.failed and (record is None or record.status == "ok")
        self._say(f"{self._place()} {event.run.label}: {what}", routine=routine)

    def _say_left_out(self) -> None:
        if text := self._limit.left_out():
            self._say(f"{self._place()} {text}", routine=True)

    def _say(self, line: str, *, routine: bool = False) -> None:
        self._display.say(visible(line), routine=routine)

    def _draw(self) -> None:
        self._drawn = self._clock()
        if self._display.columns:
            self._display.show(self._live())

    def _live(self) -> Live:
        """Return the state of the session."""
        reused = f" ({len(self._time.reused)} more reused)" if self._time.reused else ""
        waiting = [f"{len(self._waiting)} waiting for a machine"] * bool(self._waiting)
        shown = islice(self._running.values(), MOST_DRAWN)
        return Live(
            f"{len(self._time.ended)} of {len(self._time.expected)} runs done{reused}",
            (f"{len(self._running)} active", *waiting, *self._seconds()),
            self._table.headings,
            self._table.rows(),
            tuple((run.label, tuple(describe_progress(news))) for run, news in shown),
            len(self._running) - MOST_DRAWN,
        )

    def _place(self) -> str:
        done = f"{len(self._time.ended)}/{len(self._time.expected)}"
        return f"[{', '.join([done, *self._seconds()])}]"

    def _seconds(self) -> list[str]:
        """Format '4 min 10 s left'; empty when all runs have ended."""
        if len(self._time.ended) >= len(self._time.expected):
            return []
        now = self._clock()
        if now - self._estimated >= ESTIMATE_INTERVAL or len(self._running) <= MANY:
            self._estimated, self._seconds_left = now, self._time.seconds()
        return [f"{format_duration(self._seconds_left)} left"]


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
    parts += [f"loss {loss:.3f}" for loss in losses[-1:]]
    for name in ("samples_per_second", "peak_memory_bytes"):
        parts += [METRICS[name].format(value) for value in [metrics.get(name)] if value is not None]
    if (seconds := metrics.get("train_seconds")) is not None:
        parts.append(
            f"trained {format_duration(seconds) if seconds >= 60 else in_seconds(seconds)}"
        )
    return ", ".join(parts)
