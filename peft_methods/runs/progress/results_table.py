"""The comparison as it fills: of each method the runs that are done, and means over them so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, stdev

from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.progress.live import TableRow
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.metrics import BYTES, Metric, in_seconds

MISSING = "–"
SEVERAL = "Score"  # heading of a column with the values of several metrics
COSTS = ("train_seconds", "peak_memory_bytes")
Name = tuple[str, str]  # of recipe and method


@dataclass
class MethodRuns:
    """The main runs of one method on one recipe. `of` is how many there will be."""

    title: str
    metric: Metric | None
    of: int
    changed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Add a run that has ended."""
        self.statuses[record.status] += 1
        if record.status == "ok":
            for name in (*([self.metric.name] if self.metric else []), *COSTS):
                if (value := record.metrics.get(name)) is not None:
                    self.values.setdefault(name, []).append(value)

    def runs(self) -> str:
        """Format how many runs are done: '2/3', '3/3, 1 failed'."""
        others = [f"{n} {status}" for status, n in self.statuses.items() if status != "ok"]
        return ", ".join([f"{self.statuses.total()}/{self.of}", *others])

    def quality(self) -> str:
        """Format the mean so far, from two runs on with the standard deviation."""
        values = self.values.get(self.metric.name, []) if self.metric else []
        if self.metric is None or not values:
            return MISSING
        spread = f" ± {self.metric.plain(stdev(values))}" if len(values) > 1 else ""
        return f"{self.metric.plain(fmean(values))}{spread}"

    def costs(self) -> tuple[str, str]:
        """Format the mean training time and peak memory so far."""
        seconds, memory = (self.values.get(name) for name in COSTS)
        return (
            in_seconds(fmean(seconds)) if seconds else MISSING,
            f"{fmean(memory) / BYTES.size:,.0f}{BYTES.suffix}" if memory else MISSING,
        )


class ResultsTable:
    """The rows of all methods, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._rows: dict[Name, MethodRuns] = {}
        self._formatted: dict[Name, TableRow] = {}
        self._quality, self._has_recipes = "", False  # the column's heading, "" for none
        self._seen: set[str] = set()
        self._changes = 0

    def expect(self, groups: Iterable[RunGroup]) -> None:
        """Add the rows of these groups. A group that is known has a new number of runs."""
        for group in groups:
            recipe = group.recipe
            metric = METRICS[recipe.ranking_metric] if recipe.has_quality else None
            title = group.method.info.title
            row = self._rows.setdefault(group.name, MethodRuns(title, metric, 0))
            row.of = len(group.runs)
        metrics = {row.metric.title for row in self._rows.values() if row.metric}
        self._quality = "" if not metrics else metrics.pop() if len(metrics) == 1 else SEVERAL
        self._has_recipes = len({recipe for recipe, _ in self._rows}) > 1
        self._formatted.clear()

    def start(self, run: RunSpec) -> None:
        """Record that a run has started, so that its row is shown where not all fit."""
        self._touch(run)

    def add(self, run: RunSpec, record: Record) -> None:
        """Add the record of a run that has ended. Only main runs are in the table, each once."""
        row = self._touch(run)
        if row is not None and run.key not in self._seen:
            self._seen.add(run.key)
            row.add(record)

    def _touch(self, run: RunSpec) -> MethodRuns | None:
        row = self._rows.get((run.recipe.name, run.method.name)) if run.role == "main" else None
        if row is not None:
            self._changes += 1
            row.changed = self._changes
            self._formatted.pop((run.recipe.name, run.method.name), None)
        return row

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings. Without any quality there is no column for it."""
        quality = (self._quality,) if self._quality else ()
        return ("Method", "Runs", *quality, "Train time", "Peak memory")

    @property
    def ended(self) -> int:
        """The number of runs in the table that have ended."""
        return len(self._seen)

    def rows(self) -> tuple[TableRow, ...]:
        """Return the rows. Only those that have changed are formatted again."""
        for name in self._rows.keys() - self._formatted.keys():
            self._formatted[name] = self._format(name)
        return tuple(self._formatted[name] for name in self._rows)

    def _format(self, name: Name) -> TableRow:
        """Format a row. With several recipes a method is named with its recipe."""
        row, quality = self._rows[name], self._rows[name].quality()
        if self._quality == SEVERAL and row.metric and quality != MISSING:
            quality = f"{quality} {row.metric.in_text}"
        title = f"{name[0]}: {row.title}" if self._has_recipes else row.title
        shown = (quality,) if self._quality else ()
        return TableRow((title, row.runs(), *shown, *row.costs()), row.changed)
