"""Regression check: compare each method with its stored baseline.

A method fails when a metric is worse by more than its tolerance *and* by more than the spread over
seeds explains (one-sided t test, 5 % over all methods of the recipe). With one seed on either side
the tolerance decides alone. A change too small to show in any single method but common to all of
them is found by a test across methods: in a published comparison, 34 of 36 methods lost 1.65 points
of accuracy on average between two library versions without anyone noticing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from peft_methods.analysis.baseline import Baseline, Entry, present
from peft_methods.analysis.checks.measurement import LEAST_BUSY_SHARE
from peft_methods.analysis.regression_report import (
    Change,
    EntryKind,
    RegressionEntry,
    RegressionReport,
)
from peft_methods.analysis.seed_spread import explained_by_seeds, shift_p
from peft_methods.analysis.significance import ALPHA
from peft_methods.analysis.spec_changes import shortened, spec_changes
from peft_methods.analysis.tolerances import Tolerance, default_tolerances
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.utils.words import counted


@dataclass(frozen=True)
class RegressionCheck:
    """Baselines by recipe and the rules for comparing with them.

    `tolerances` None: one point of quality, 5 % of memory, 10 % of time. `how_to_change` names the
    option or argument for a setting.
    """

    baselines: Mapping[str, Baseline]
    tolerances: tuple[Tolerance, ...] | None = None
    allow_missing: bool = False
    allow_reused: bool = False
    how_to_change: Callable[[str], str] = str

    def check(self, records: Iterable[Record]) -> RegressionReport:
        """Compare all methods of a session with their baselines."""
        methods: dict[tuple[str, str], list[Record]] = {}
        first: dict[str, Record] = {}
        for record in records:
            if record.role == "main":
                first.setdefault(record.recipe_name, record)
                key = (record.recipe_name, record.method_name)
                methods.setdefault(key, []).append(record)
        references = [
            self._reference(record) for recipe, record in first.items() if recipe in self.baselines
        ]
        entries = [
            *(entry for found in methods.values() for entry in self.check_method(found)),
            *self.check_common(record for found in methods.values() for record in found),
        ]
        if not any(entry.is_failure for entry in entries):
            text = "No metric is worse by more than its tolerance and the spread over seeds."
            entries.append(RegressionEntry(EntryKind.PASSED, text))
        return RegressionReport((*references, *entries), tuple(methods))

    def _reference(self, record: Record) -> RegressionEntry:
        recipe = record.recipe_name
        tolerances = ", ".join(map(str, self.tolerances_for(record)))
        text = f"compared with {self.baselines[recipe]}; tolerances {tolerances}"
        return RegressionEntry(EntryKind.REFERENCE, text, recipe)

    def check_method(self, records: Sequence[Record]) -> list[RegressionEntry]:
        """Compare the finished runs of one method of one recipe with its baseline."""
        good = [record for record in records if record.status == "ok"]
        if not good or (baseline := self.baselines.get(good[0].recipe_name)) is None:
            return []
        recipe, method = good[0].recipe_name, good[0].method_name
        entry = baseline.entries.get((recipe, method))
        if entry is None:
            has = ", ".join(baseline.methods(recipe)) or f"nothing of {recipe}"
            text = f"missing from the baseline {baseline}, which has {has}"
            return [self._missing(recipe, method, text)]
        if (reused := sum(record.reused for record in good)) and not self.allow_reused:
            text = (
                f"{reused} of {counted(len(good), 'record')} {'is' if reused == 1 else 'are'} "
                "reused from an earlier session and not compared: train them again with "
                f"{self.how_to_change('fresh')}, or give {self.how_to_change('allow_reused')}."
            )
            return [RegressionEntry(EntryKind.FAILURE, text, recipe, method)]
        changed = spec_changes(entry, good)
        return [
            *self._regressions(entry, baseline, good, changed),
            *(
                self._missing(
                    recipe, method, f"has no {name}, which the baseline {baseline} has", name
                )
                for name in self._lost(entry, good)
            ),
            *(
                RegressionEntry(EntryKind.NOTE, text, recipe, method)
                for text in _device_notes(entry, good[0])
            ),
            *(RegressionEntry(EntryKind.SPEC_CHANGE, one, recipe, method) for one in changed),
        ]

    def _regressions(
        self, entry: Entry, baseline: Baseline, records: Sequence[Record], changed: Sequence[str]
    ) -> Iterator[RegressionEntry]:
        differs = f" Differs: {shortened(changed)}." if changed else ""
        for change in self._changes(entry, baseline, records):
            if change.fails:
                metric = change.tolerance.metric
                text = f"{change}.{_busy(metric, records)} Baseline: {baseline}.{differs}"
                yield RegressionEntry(EntryKind.FAILURE, text, entry.recipe, entry.method, metric)

    def check_common(self, records: Iterable[Record]) -> list[RegressionEntry]:
        """Find methods of the baseline that did not run, and shifts common to all methods."""
        by_recipe: dict[str, dict[str, list[Record]]] = {}
        for record in records:
            if record.role == "main":
                by_recipe.setdefault(record.recipe_name, {}).setdefault(
                    record.method_name, []
                ).append(record)
        return [
            entry
            for recipe in self.baselines
            for methods in [by_recipe.get(recipe, {})]
            for entry in (*self._not_run(recipe, methods), *self._shifts(recipe, methods))
        ]

    def tolerances_for(self, record: Record) -> tuple[Tolerance, ...]:
        """Return the given tolerances, or the defaults for the record's recipe."""
        return (
            default_tolerances(record.spec.recipe.selection_metric)
            if self.tolerances is None
            else self.tolerances
        )

    def _missing(
        self, recipe: str, method: str, text: str, metric: str | None = None
    ) -> RegressionEntry:
        if self.allow_missing:
            return RegressionEntry(EntryKind.NOTE, f"{text} (allowed)", recipe, method, metric)
        save, allow = map(self.how_to_change, ("save_baseline", "allow_missing"))
        advice = f"Write the baseline again with {save}, or give {allow}."
        return RegressionEntry(EntryKind.FAILURE, f"{text}. {advice}", recipe, method, metric)

    def _not_run(
        self, recipe: str, methods: Mapping[str, list[Record]]
    ) -> Iterator[RegressionEntry]:
        for method in self.baselines[recipe].methods(recipe):
            records = methods.get(method, [])
            if all(record.status == "skipped" for record in records):
                why = f" (skipped: {records[0].message})" if records else ""
                text = f"in the baseline {self.baselines[recipe]} but not in this session{why}"
                yield self._missing(recipe, method, text)

    def _shifts(
        self, recipe: str, methods: Mapping[str, list[Record]]
    ) -> Iterator[RegressionEntry]:
        """Find metrics whose mean over methods is significantly worse than tolerated."""
        baseline = self.baselines[recipe]
        worse: dict[Tolerance, list[float]] = {}
        for method, records in methods.items():
            good = [
                record
                for record in records
                if record.status == "ok" and (self.allow_reused or not record.reused)
            ]
            if good and (entry := baseline.entries.get((recipe, method))) is not None:
                for change in self._changes(entry, baseline, good):
                    worse.setdefault(change.tolerance, []).append(change.worse)
        for tolerance, changes in worse.items():
            mean, p = fmean(changes), shift_p(changes)
            if tolerance.is_exceeded(mean) and p < ALPHA / len(worse):
                down = sum(change > 0 for change in changes)
                text = (
                    f"{down} of {counted(len(changes), 'method')} "
                    f"{'is' if down == 1 else 'are'} worse in {tolerance.metric}, by "
                    f"{tolerance.formatted(mean)} on average (tolerance "
                    f"{tolerance.formatted(tolerance.amount)}; p = {p:.2g} across methods): "
                    f"a common shift. Baseline: {baseline}."
                )
                yield RegressionEntry(EntryKind.FAILURE, text, recipe, metric=tolerance.metric)

    def changes(self, records: Sequence[Record]) -> list[Change]:
        """Compare each metric of one method's finished runs with its baseline.

        Empty if there is no baseline of this recipe and method.
        """
        good = [record for record in records if record.status == "ok"]
        baseline = self.baselines.get(good[0].recipe_name) if good else None
        entry = (
            baseline.entries.get((good[0].recipe_name, good[0].method_name)) if baseline else None
        )
        return self._changes(entry, baseline, good) if entry and baseline else []

    def _changes(self, entry: Entry, baseline: Baseline, records: Sequence[Record]) -> list[Change]:
        """Compare every metric that has a tolerance and comparable values on both sides."""
        same_device = device_of(entry.environment) == device_of(records[0].environment)
        others = [
            other
            for (recipe, method), other in baseline.entries.items()
            if recipe == entry.recipe and method != entry.method
        ]
        changes = []
        for tolerance in self.tolerances_for(records[0]):
            before, now = entry.values(tolerance.metric), values_of(records, tolerance.metric)
            if before and now and (same_device or not METRICS[tolerance.metric].device_dependent):
                spread = _explained(
                    tolerance, before, now, [other.values(tolerance.metric) for other in others]
                )
                changes.append(
                    Change(
                        tolerance,
                        fmean(before),
                        fmean(now),
                        tolerance.worse(fmean(before), fmean(now)),
                        spread,
                    )
                )
        return changes

    def _lost(self, entry: Entry, records: Sequence[Record]) -> list[str]:
        """Return the metrics that the baseline has and these records lack."""
        names = [tolerance.metric for tolerance in self.tolerances_for(records[0])]
        same_device = device_of(entry.environment) == device_of(records[0].environment)
        comparable = [name for name in names if same_device or not METRICS[name].device_dependent]
        return [name for name in comparable if entry.values(name) and not values_of(records, name)]


def values_of(records: Sequence[Record], metric: str) -> list[float]:
    """Return the metric's value of each seed, without missing ones."""
    return present(record.metrics.get(metric) for record in records)


def device_of(environment: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what times and memory depend on: the device and, on a CPU, the threads of a run."""
    is_cpu = environment.get("device") == "cpu"
    return str(environment.get("device_name")), environment.get("threads") if is_cpu else None


def _explained(
    tolerance: Tolerance, before: list[float], now: list[float], others: Sequence[list[float]]
) -> float | None:
    """Return how much worse the spread over seeds can make a metric, in the tolerance's unit.

    For a relative tolerance, values are divided by the mean of their own method's baseline.
    """

    def scaled(values: list[float], by: list[float]) -> list[float]:
        return (
            [value / abs(fmean(by)) for value in values]
            if tolerance.relative and fmean(by)
            else values
        )

    return explained_by_seeds(
        scaled(before, before),
        scaled(now, before),
        [scaled(other, other) for other in others if other],
    )


def _busy(metric: str, records: Sequence[Record]) -> str:
    """Return a warning if a time was measured on a busy machine (as rule V411 defines it)."""
    shares = [
        share for record in records if (share := record.metrics.get("busy_share")) is not None
    ]
    if not metric.endswith("_seconds") or min(shares, default=1.0) >= LEAST_BUSY_SHARE:
        return ""
    return (
        f" The machine was busy: the training thread had a core for {min(shares):.0%} of the time "
        "(V411). Measure again on an idle machine."
    )


def _device_notes(entry: Entry, record: Record) -> Iterator[str]:
    then, now = device_of(entry.environment), device_of(record.environment)
    if then != now:
        yield (
            f"another device ({_device(then)} → {_device(now)}): quality is compared, "
            "time and memory are not"
        )


def _device(device: tuple[str, Any]) -> str:
    return device[0] + (f", {counted(device[1], 'thread')}" if device[1] is not None else "")
