"""Regression check: compare each method with its stored baseline.

A method fails when a metric is worse by more than its tolerance *and* by more than chance explains:
the spread over seeds and the drift between sessions (`noise`), at 5 % false alarms over all methods
and metrics of the recipe. A change too small to show in any single method but common to all of them
is found by a test across methods: in a published comparison, 34 of 36 methods lost 1.65 points of
accuracy on average between two library versions without anyone noticing. Where times drift, each
method is compared with the others of its session, too (`session_change`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from peft_methods.analysis.baseline import Baseline, Entry
from peft_methods.analysis.changes import RecipeBaseline, is_of_test_rows, recorded
from peft_methods.analysis.metric_comparison import MetricComparison
from peft_methods.analysis.regression_notes import (
    busy,
    device_notes,
    limit_notes,
    relative_text,
    shift_text,
    upgrade_notes,
)
from peft_methods.analysis.regression_report import (
    Change,
    EntryKind,
    RegressionEntry,
    RegressionReport,
)
from peft_methods.analysis.spec_changes import shortened, spec_changes, test_row_changes
from peft_methods.analysis.tolerances import Tolerance, default_tolerances
from peft_methods.runs.record import Record
from peft_methods.utils.words import counted

PASSED = "No metric is worse by more than its tolerance and chance."


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
            *(entry for recipe in self.baselines for entry in self._limits(recipe, methods)),
        ]
        if not any(entry.is_failure for entry in entries):
            entries.append(RegressionEntry(EntryKind.PASSED, PASSED))
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
        changed, changes = spec_changes(entry, good), self._changes(baseline, good)
        differs = f" Differs: {shortened(changed)}." if changed else ""
        end = f"Baseline: {baseline}.{differs}"
        return [
            *(_failure(change, good, end) for change in changes if change.fails),
            *(
                self._missing(
                    recipe, method, f"has no {name}, which the baseline {baseline} has", name
                )
                for name in self._lost(entry, good)
            ),
            *(
                RegressionEntry(EntryKind.NOTE, text, recipe, method)
                for text in (
                    *device_notes(entry, good[0]),
                    *upgrade_notes(entry, good[0], changes),
                )
            ),
            *(RegressionEntry(EntryKind.SPEC_CHANGE, one, recipe, method) for one in changed),
        ]

    def check_common(self, records: Iterable[Record]) -> list[RegressionEntry]:
        """Find what only the whole session shows: missing methods, other rows, common shifts."""
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
            for entry in (
                *self._not_run(recipe, methods),
                *self._other_rows(recipe, methods),
                *self._shifts(recipe, methods),
            )
        ]

    def tolerances_for(self, record: Record) -> tuple[Tolerance, ...]:
        """Return the given tolerances, or the defaults for the record's recipe."""
        return (
            default_tolerances(record.spec.recipe.ranking_metric)
            if self.tolerances is None
            else self.tolerances
        )

    def _missing(
        self, recipe: str, method: str | None, text: str, metric: str | None = None
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

    def _other_rows(
        self, recipe: str, methods: Mapping[str, list[Record]]
    ) -> Iterator[RegressionEntry]:
        """Say that quality is not compared, where the test rows are others than the baseline's."""
        baseline = self.baselines[recipe]
        found: dict[str, str] = {}
        for method, records in methods.items():
            entry = baseline.entries.get((recipe, method))
            if entry is not None and (changed := test_row_changes(entry, records[0])):
                lost = [
                    one.metric
                    for one in self.tolerances_for(records[0])
                    if is_of_test_rows(one.metric) and entry.values(one.metric)
                ]
                found |= dict.fromkeys(lost, shortened(changed))
        for metric, why in found.items():
            text = f"{metric} is not compared: the baseline {baseline} has other test rows"
            yield self._missing(recipe, None, f"{text} ({why})", metric)

    def _judged(
        self, recipe: str, methods: Mapping[str, list[Record]]
    ) -> Iterator[MetricComparison]:
        """Yield every metric of all methods that were trained now and are in the baseline."""
        part = self._part(recipe, next((one[0] for one in methods.values()), None))
        good = {
            method: [
                record
                for record in records
                if record.status == "ok" and (self.allow_reused or not record.reused)
            ]
            for method, records in methods.items()
            if method in part.entries
        }
        for tolerance in part.tolerances:
            found = {
                method: records
                for method, records in good.items()
                if records and tolerance in part.comparable(method, records[0])
            }
            if (one := part.compared(tolerance, found)) is not None:
                yield one

    def _shifts(
        self, recipe: str, methods: Mapping[str, list[Record]]
    ) -> Iterator[RegressionEntry]:
        """Find what only all methods together show: common shifts, and single methods' changes."""
        baseline = self.baselines[recipe]
        for one in self._judged(recipe, methods):
            metric = one.tolerance.metric
            if (text := shift_text(one)) is not None:
                text = f"{text} Baseline: {baseline}."
                yield RegressionEntry(EntryKind.FAILURE, text, recipe, metric=metric)
            for method in one.now:
                text = relative_text(one, method)
                alone = self.changes(methods[method]) if text else ()
                if text and not any(c.fails for c in alone if c.tolerance == one.tolerance):
                    text = f"{text}{busy(metric, methods[method])} Baseline: {baseline}."
                    yield RegressionEntry(EntryKind.FAILURE, text, recipe, method, metric)

    def _limits(
        self, recipe: str, methods: Mapping[tuple[str, str], list[Record]]
    ) -> Iterator[RegressionEntry]:
        """Name the metrics that noise keeps from being judged, or from being judged closely."""
        found = [
            change
            for (of, _), records in methods.items()
            if of == recipe
            for change in self.changes(records)
        ]
        for text, metric in limit_notes(found):
            yield RegressionEntry(EntryKind.NOTE, text, recipe, metric=metric)

    def changes(self, records: Sequence[Record]) -> list[Change]:
        """Compare each metric of one method's finished runs with its baseline.

        Empty if there is no baseline of this recipe and method.
        """
        good = [record for record in records if record.status == "ok"]
        baseline = self.baselines.get(good[0].recipe_name) if good else None
        return self._changes(baseline, good) if baseline else []

    def _changes(self, baseline: Baseline, records: Sequence[Record]) -> list[Change]:
        method = records[0].method_name
        part = self._part_of(baseline, records[0])
        return part.changes(method, records) if method in part.entries else []

    def _part_of(self, baseline: Baseline, record: Record) -> RecipeBaseline:
        return RecipeBaseline.of(baseline, record.recipe_name, self.tolerances_for(record))

    def _part(self, recipe: str, record: Record | None) -> RecipeBaseline:
        if record is None:
            return RecipeBaseline({}, ())
        return self._part_of(self.baselines[recipe], record)

    def _lost(self, entry: Entry, records: Sequence[Record]) -> list[str]:
        """Return the metrics that the baseline has and these records lack."""
        part = RecipeBaseline({entry.method: entry}, self.tolerances_for(records[0]))
        names = [one.metric for one in part.comparable(entry.method, records[0])]
        return [name for name in names if entry.values(name) and not recorded(records, name)]


def _failure(change: Change, records: Sequence[Record], end: str) -> RegressionEntry:
    metric, record = change.tolerance.metric, records[0]
    text = f"{change}.{busy(metric, records)} {end}"
    return RegressionEntry(EntryKind.FAILURE, text, record.recipe_name, record.method_name, metric)
