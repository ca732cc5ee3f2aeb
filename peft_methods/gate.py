"""Regression check: compare each method with its stored baseline.

A method fails when a metric is worse by more than its tolerance *and* by more than the spread over
seeds explains (one-sided t test, 5 % over all methods of the recipe). With one seed on either side
the tolerance decides alone. A change too small to show in any single method but common to all of
them is found by a test across methods: in a published comparison, 34 of 36 methods lost 1.65 points
of accuracy on average between two library versions without anyone noticing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import Any

from peft_methods.baseline import Baseline, Entry, present
from peft_methods.metrics import METRICS
from peft_methods.records import Record
from peft_methods.statistics import ALPHA, explained_by_seeds, shift_p
from peft_methods.tolerances import Tolerance, default_tolerances
from peft_methods.validity.measuring import BUSY

SHOWN_DIFFERENCES = 6


@dataclass(frozen=True)
class Change:
    """Baseline and new value of one metric of one method.

    `worse` is in the tolerance's unit. `explained` is the part that the spread over seeds explains,
    None with one seed.
    """

    tolerance: Tolerance
    before: float
    now: float
    worse: float
    explained: float | None

    @property
    def fails(self) -> bool:
        """Whether the metric is worse by more than the tolerance and more than seeds explain."""
        return self.tolerance.is_exceeded(self.worse) and (
            self.explained is None or self.worse > self.explained
        )

    def __str__(self) -> str:
        metric, verb = METRICS[self.tolerance.metric], "rose" if self.now > self.before else "fell"
        spread = (
            "one seed: no spread to compare with"
            if self.explained is None
            else f"seeds explain {self.tolerance.said(self.explained)}"
        )
        return (
            f"{metric.name} {verb} from {metric.format(self.before)} to {metric.format(self.now)}, "
            f"worse by {self.tolerance.said(self.worse)} "
            f"(tolerance {self.tolerance.said(self.tolerance.amount)}; {spread})"
        )


class EntryKind(Enum):
    """Meaning of an entry of a regression report."""

    REFERENCE = "reference"  # the baseline and tolerances used for a recipe
    NOTE = "note"  # limits of the comparison of one method
    SPEC_CHANGE = "spec_change"  # a difference between the run and the baseline's run
    FAILURE = "failure"  # a regression, a missing method or metric, a reused record
    PASSED = "passed"  # nothing failed
    SAVED = "saved"  # a new baseline was written
    NOT_SAVED = "not_saved"  # a new baseline could not be written
    NOT_CHECKED = "not_checked"  # the session ended before all runs were trained


FAILING = frozenset({EntryKind.FAILURE, EntryKind.NOT_SAVED})
PREFIXES = {
    EntryKind.FAILURE: "regression check: ",
    EntryKind.NOT_SAVED: "the baseline was not written: ",
}
WITH_SUBJECT = frozenset(
    {EntryKind.REFERENCE, EntryKind.NOTE, EntryKind.SPEC_CHANGE, EntryKind.FAILURE}
)
EVERY_METHOD = "every method"


@dataclass(frozen=True)
class RegressionEntry:
    """One statement of a regression report.

    `recipe` is None for a statement about the whole session, `method` for one about a whole recipe,
    `metric` where the statement is not about a single metric. `text` does not repeat the subject.
    """

    kind: EntryKind
    text: str
    recipe: str | None = None
    method: str | None = None
    metric: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether this entry makes the session fail."""
        return self.kind in FAILING

    @property
    def subject(self) -> str:
        """'RECIPE-METHOD', 'RECIPE', or an empty text."""
        return "-".join(part for part in (self.recipe, self.method) if part)

    def __str__(self) -> str:
        return _line(self.kind, self.subject, self.text)


def _line(kind: EntryKind, subject: str, text: str) -> str:
    about = f"{subject}: " if subject and kind in WITH_SUBJECT else ""
    differs = "differs from the baseline: " if kind is EntryKind.SPEC_CHANGE else ""
    return f"{PREFIXES.get(kind, '')}{about}{differs}{text}"


@dataclass(frozen=True)
class ReportLine:
    """A printable line of a regression report."""

    text: str
    is_failure: bool


@dataclass(frozen=True)
class RegressionReport:
    """Result of a regression check. `checked` lists the (recipe, method) pairs of the session."""

    entries: tuple[RegressionEntry, ...] = ()
    checked: tuple[tuple[str, str], ...] = ()

    @property
    def failures(self) -> tuple[RegressionEntry, ...]:
        """The entries that make the session fail."""
        return tuple(entry for entry in self.entries if entry.is_failure)

    def of_recipe(self, recipe: str) -> RegressionReport:
        """Return the part about one recipe, including entries about the whole session."""
        return RegressionReport(
            tuple(entry for entry in self.entries if entry.recipe in {None, recipe}),
            tuple(pair for pair in self.checked if pair[0] == recipe),
        )

    def lines(self) -> list[ReportLine]:
        """Return the entries as text: references, notes, spec changes, then all others.

        Notes and spec changes that several methods share are printed once.
        """
        grouped = (EntryKind.NOTE, EntryKind.SPEC_CHANGE)
        references = [one for one in self.entries if one.kind is EntryKind.REFERENCE]
        others = [one for one in self.entries if one.kind not in {EntryKind.REFERENCE, *grouped}]
        return [
            *(ReportLine(str(entry), False) for entry in references),
            *(ReportLine(text, False) for kind in grouped for text in self._grouped(kind)),
            *(ReportLine(str(entry), entry.is_failure) for entry in others),
        ]

    def _grouped(self, kind: EntryKind) -> list[str]:
        """Group entries by text; a text that all checked methods share is about every method."""
        subjects_of: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.kind is kind:
                subjects_of.setdefault(entry.text, []).append(entry.subject)
        texts_of: dict[str, list[str]] = {}
        for text, subjects in subjects_of.items():
            is_shared = len(subjects) == len(self.checked)
            subject = EVERY_METHOD if is_shared else ", ".join(subjects)
            texts_of.setdefault(subject, []).append(text)
        return [_line(kind, subject, "; ".join(texts)) for subject, texts in texts_of.items()]


def merge(reports: Iterable[RegressionReport]) -> RegressionReport:
    """Return one report with the entries of several."""
    found = list(reports)
    return RegressionReport(
        tuple(entry for report in found for entry in report.entries),
        tuple(dict.fromkeys(pair for report in found for pair in report.checked)),
    )


@dataclass(frozen=True)
class Gate:
    """Baselines by recipe and the rules for comparing with them.

    `tolerances` None: one point of quality, 5 % of memory, 10 % of time.
    """

    baselines: Mapping[str, Baseline]
    tolerances: tuple[Tolerance, ...] | None = None
    allow_missing: bool = False
    allow_reused: bool = False

    def check(self, records: Iterable[Record]) -> RegressionReport:
        """Compare all methods of a session with their baselines."""
        methods: dict[tuple[str, str], list[Record]] = {}
        first: dict[str, Record] = {}
        for record in records:
            if not record.is_source:
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
                f"{reused} of {len(good)} records are reused from an earlier session and not "
                "compared: train them again (set fresh), or set allow_reused."
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
        differs = f" Differs: {_shortened(changed)}." if changed else ""
        for change in self._changes(entry, baseline, records):
            if change.fails:
                metric = change.tolerance.metric
                text = f"{change}.{_busy(metric, records)} Baseline: {baseline}.{differs}"
                yield RegressionEntry(EntryKind.FAILURE, text, entry.recipe, entry.method, metric)

    def check_common(self, records: Iterable[Record]) -> list[RegressionEntry]:
        """Find methods of the baseline that did not run, and shifts common to all methods."""
        by_recipe: dict[str, dict[str, list[Record]]] = {}
        for record in records:
            if not record.is_source:
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
            default_tolerances(str(record.cell["recipe"]["data"]["select_by"]))
            if self.tolerances is None
            else self.tolerances
        )

    def _missing(
        self, recipe: str, method: str, text: str, metric: str | None = None
    ) -> RegressionEntry:
        if self.allow_missing:
            return RegressionEntry(EntryKind.NOTE, f"{text} (allowed)", recipe, method, metric)
        advice = "Write the baseline again (set save_baseline), or set allow_missing."
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
                    f"{down} of {len(changes)} methods are worse in {tolerance.metric}, by "
                    f"{tolerance.said(mean)} on average (tolerance "
                    f"{tolerance.said(tolerance.amount)}; p = {p:.2g} across methods): "
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
            if before and now and (same_device or not METRICS[tolerance.metric].is_of_the_device):
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
        comparable = [name for name in names if same_device or not METRICS[name].is_of_the_device]
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
    if not metric.endswith("_seconds") or min(shares, default=1.0) >= BUSY:
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
    return device[0] + (f", {device[1]} threads" if device[1] is not None else "")


def spec_changes(entry: Entry, records: Sequence[Record]) -> list[str]:
    """Return what changed since the baseline: seeds, recipe and method, data, library versions."""
    record = records[0]
    seeds = (entry.seeds, tuple(one.seed for one in records))
    then = {
        "seeds": _list(sorted(seeds[0])),
        **flat(entry.spec),
        **_surroundings(entry.data, entry.environment),
    }
    now = {
        "seeds": _list(sorted(seeds[1])),
        **flat(record.cell),
        **_surroundings(record.data, record.environment),
    }
    pairs = {
        name: (then.get(name, "None"), now.get(name, "None"))
        for name in {**then, **now}
        if not name.startswith("expect.")
    }
    return [
        f"{name} {before} → {after}" for name, (before, after) in pairs.items() if before != after
    ]


def _surroundings(data: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    versions = {
        **(environment.get("packages") or {}),
        **{name: environment.get(name) for name in ("python", "cuda", "driver")},
    }
    known = {
        **versions,
        "data": str(data.get("fingerprint"))[:10],
        "weights": str(environment.get("weights_sha256"))[:10],
    }
    return {name: str(value) for name, value in known.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested values: {'budget': {'epochs': 2}} -> {'budget.epochs': '2'}.

    Leaves out device and seed, which are reported separately.
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        path = f"{prefix}{name}".removeprefix("recipe.")
        nested = (
            dict(enumerate(value))
            if isinstance(value, list) and value and isinstance(value[0], dict)
            else value
        )
        if isinstance(nested, dict):
            found |= flat({str(key): one for key, one in nested.items()}, f"{path}.")
        elif name not in {"device", "seed"} or prefix.endswith("data."):
            found[path] = str(value)
    return found


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _shortened(changes: Sequence[str]) -> str:
    more = len(changes) - SHOWN_DIFFERENCES
    return "; ".join(changes[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
