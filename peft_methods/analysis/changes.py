"""The metrics of one recipe in a baseline and in a session: from records to comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from peft_methods.analysis.baseline import Baseline, Entry, present
from peft_methods.analysis.metric_comparison import MetricComparison, Runs, compare, family_of
from peft_methods.analysis.regression_report import Change
from peft_methods.analysis.samples import SEEDS_NEEDED, Array
from peft_methods.analysis.spec_changes import device_of, test_row_changes
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.tasks.registry import TASKS

PACE = "pace_seconds"
Values = Mapping[str, Sequence[float | None]]  # of each metric, one per seed


@dataclass(frozen=True)
class RecipeBaseline:
    """A recipe's part of a baseline: its entries by method, and the metrics that are judged."""

    entries: Mapping[str, Entry]
    tolerances: tuple[Tolerance, ...]

    @classmethod
    def of(
        cls, baseline: Baseline, recipe: str, tolerances: tuple[Tolerance, ...]
    ) -> RecipeBaseline:
        """Return the part of a baseline about one recipe."""
        entries = {name: one for (of, name), one in baseline.entries.items() if of == recipe}
        return cls(entries, tolerances)

    def comparable(self, method: str, record: Record) -> list[Tolerance]:
        """Return the tolerances of metrics that may be compared.

        Times and memory are those of a device, quality is that on certain test rows.
        """
        entry = self.entries[method]
        same_device = device_of(entry.environment) == device_of(record.environment)
        same_rows = not test_row_changes(entry, record)
        return [
            tolerance
            for tolerance in self.tolerances
            if (same_device or not METRICS[tolerance.metric].device_dependent)
            and (same_rows or not is_of_test_rows(tolerance.metric))
        ]

    def changes(self, method: str, records: Sequence[Record]) -> list[Change]:
        """Compare every metric of one method that has values on both sides."""
        entry, found = self.entries[method], []
        for tolerance in self.comparable(method, records[0]):
            one = self.compared(tolerance, {method: records})
            if one is not None and method in one.now:
                found.append(_change(one, method, entry, records))
        return found

    def compared(
        self, tolerance: Tolerance, by_method: Mapping[str, Sequence[Record]]
    ) -> MetricComparison | None:
        """Return one metric of several methods, ready to be judged; None without any values."""
        metric = tolerance.metric
        before = {
            name: [runs_of(one.metrics, metric) for one in entry.sessions if one.values(metric)]
            for name, entry in self.entries.items()
        }
        before = {name: found for name, found in before.items() if found}
        now = {
            name: runs_of(values, metric)
            for name, records in by_method.items()
            if name in before and present((values := _columns(records)).get(metric, ()))
        }
        if not now:
            return None
        judged = [
            one.metric
            for one in self.tolerances
            if any(entry.values(one.metric) for entry in self.entries.values())
        ]
        return compare(tolerance, before, now, family_of(metric, judged, len(self.entries)))


def runs_of(metrics: Values, metric: str) -> Runs:
    """Return a metric's value of each seed, without missing ones, and the pace beside it.

    A pace that is missing or 0 for one seed is None for all.
    """
    values = metrics.get(metric, ())
    paces = metrics.get(PACE, ())
    known = [place for place, value in enumerate(values) if present([value])]
    beside = [paces[place] if place < len(paces) else None for place in known]
    pace = present(beside)
    has_pace = len(pace) == len(known) and all(pace)
    return Runs(np.asarray(present(values)), np.asarray(pace) if has_pace else None)


def is_of_test_rows(metric: str) -> bool:
    """Whether a metric is the quality of predictions for the test rows."""
    return any(metric == one.name for task in TASKS.values() for one in task.metrics)


def recorded(records: Iterable[Record], metric: str) -> list[float]:
    """Return the metric's value of each record, without missing ones."""
    return present(record.metrics.get(metric) for record in records)


def _columns(records: Iterable[Record]) -> dict[str, list[float | None]]:
    """Return the metrics of records as a baseline holds them: a value per seed."""
    found = list(records)
    names = dict.fromkeys(name for record in found for name in record.metrics)
    return {name: [record.metrics.get(name) for record in found] for name in names}


def _change(one: MetricComparison, method: str, entry: Entry, records: Sequence[Record]) -> Change:
    """Build the change of one method, with the values as they were measured."""
    metric = one.tolerance.metric
    then = [found for session in entry.sessions if (found := session.values(metric))]
    judged = one.of_method(method)
    pace = None
    if one.by_pace:
        paces = [fmean(session.values(PACE)) for session in entry.sessions]
        pace = fmean(recorded(records, PACE)) / fmean(paces) - 1
    return Change(
        one.tolerance,
        fmean(map(fmean, then)),
        fmean(recorded(records, metric)),
        float(one.alone(method)),
        None if judged is None else float(judged.explained),
        "seeds and drift" if one.noise.family.drifting else "seeds",
        limit_of(one, method),
        pace,
    )


def limit_of(one: MetricComparison, method: str) -> str:
    """Say what of the noise was assumed instead of measured, and what would measure it."""
    assumed, limits, needs = one.noise.assumed, [], []
    groups = [*(group for found in one.noise.baseline.values() for group in found), one.now[method]]
    if max(len(group) for group in groups) < SEEDS_NEEDED and (
        assumed.seeds is None or assumed.seeds > 0
    ):
        limits.append(f"one seed{_deviation(one.tolerance, assumed.seeds, 'between seeds')}")
        needs.append("two seeds or more")
    if one.noise.family.drifting and one.noise.drift.sessions < 2:
        limits.append(
            "one session in the baseline"
            f"{_deviation(one.tolerance, assumed.drift, 'between sessions')}"
        )
        needs.append("more sessions in the baseline" + ("" if one.by_pace else ", or its pace"))
    return f"{'; '.join(limits)}; needs {' and '.join(needs)}" if limits else ""


def _deviation(tolerance: Tolerance, deviation: float | Array | None, where: str) -> str:
    if deviation is None:
        return ""
    amount = tolerance.formatted(float(deviation))
    return f" (a standard deviation of {amount} {where} is assumed)"
