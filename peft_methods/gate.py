"""The regression gate: is a method worse than its stored baseline, beyond tolerance and beyond what the seeds' spread explains?

A method fails when a metric is worse by more than its tolerance *and* by more than seeds explain (one-sided t, 5 % over all
methods of the recipe; with one seed on either side the tolerance decides alone). A change too small to show in any one
method but common to all of them is found across methods: peers have lost 1.65 points in 34 of 36 methods unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    """One metric of one method, then and now. `worse` in the tolerance's terms; `explained` by the seeds' spread, None for one seed."""

    tolerance: Tolerance
    before: float
    now: float
    worse: float
    explained: float | None

    @property
    def fails(self) -> bool:
        """Whether it is worse beyond tolerance and beyond spread."""
        return self.tolerance.is_exceeded(self.worse) and (
            self.explained is None or self.worse > self.explained
        )

    def __str__(self) -> str:
        metric, verb = METRICS[self.tolerance.metric], "rose" if self.now > self.before else "fell"
        spread = (
            "one seed: no spread to judge by"
            if self.explained is None
            else f"seeds explain {self.tolerance.said(self.explained)}"
        )
        return (
            f"{metric.name} {verb} from {metric.format(self.before)} to {metric.format(self.now)}, "
            f"worse by {self.tolerance.said(self.worse)} (tolerance {self.tolerance.said(self.tolerance.amount)}; {spread})"
        )


@dataclass(frozen=True)
class Judgement:
    """What the gate says: `problems` fail; `notes` and what is `differing` are said (about whom, and what)."""

    problems: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    differing: tuple[tuple[str, str], ...] = ()


def together(judgements: Iterable[Judgement]) -> Judgement:
    """Several judgements as one."""
    found = list(judgements)
    return Judgement(
        tuple(one for judgement in found for one in judgement.problems),
        tuple(one for judgement in found for one in judgement.notes),
        tuple(one for judgement in found for one in judgement.differing),
    )


@dataclass(frozen=True)
class Gate:
    """Baselines by recipe, and how they are applied. `tolerances` None: one point of quality, 5 % of memory, 10 % of time."""

    baselines: Mapping[str, Baseline]
    tolerances: tuple[Tolerance, ...] | None = None
    allow_missing: bool = False
    allow_reused: bool = False

    def judge(self, records: Sequence[Record]) -> Judgement:
        """One method of one recipe: its finished cells against its baseline."""
        good = [record for record in records if record.status == "ok"]
        if not good or (baseline := self.baselines.get(good[0].recipe_name)) is None:
            return Judgement()
        first = good[0]
        entry, name = (
            baseline.entries.get((first.recipe_name, first.method_name)),
            f"{first.recipe_name}-{first.method_name}",
        )
        if entry is None:
            had = (
                ", ".join(baseline.methods(first.recipe_name)) or f"nothing of {first.recipe_name}"
            )
            return self._missing(name, f"is missing from the baseline {baseline}, which has {had}")
        if (reused := sum(is_reused(record) for record in good)) and not self.allow_reused:
            said = f"{reused} of {len(good)} records of {name} are reused from an earlier run, so they are not judged"
            return Judgement(
                (f"gate: {said}: train them anew (--peft-fresh), or --peft-allow-reused.",)
            )
        differing = differences(entry, good)
        told = f" Baseline: {baseline}." + (f" Differs: {_some(differing)}." if differing else "")
        failing = [change for change in self._changes(entry, baseline, good) if change.fails]
        problems = [
            f"gate: {name}: {change}.{_busy(change.tolerance.metric, good)}{told}"
            for change in failing
        ]
        lost = self._lost(entry, good)
        missing = (
            self._missing(
                name, f"has no {' and no '.join(lost)}, which the baseline {baseline} has"
            )
            if lost
            else Judgement()
        )
        notes = [(name, line) for line in _said_of_device(entry, first)]
        return Judgement(
            (*problems, *missing.problems),
            (*notes, *missing.notes),
            tuple((name, one) for one in differing),
        )

    def judge_together(self, records: Iterable[Record]) -> Judgement:
        """What only all methods show: those of the baseline that did not run, and shifts that they have in common."""
        by_recipe: dict[str, dict[str, list[Record]]] = {}
        for record in records:
            if not record.is_source:
                by_recipe.setdefault(record.recipe_name, {}).setdefault(
                    record.method_name, []
                ).append(record)
        return together(
            judgement
            for recipe in self.baselines
            for methods in [by_recipe.get(recipe, {})]
            for judgement in (*self._not_run(recipe, methods), *self._shifts(recipe, methods))
        )

    def tolerances_for(self, record: Record) -> tuple[Tolerance, ...]:
        """Those asked for, or the default ones of the record's recipe."""
        return (
            default_tolerances(str(record.cell["recipe"]["data"]["select_by"]))
            if self.tolerances is None
            else self.tolerances
        )

    def _missing(self, name: str, text: str) -> Judgement:
        if self.allow_missing:
            return Judgement(notes=((name, f"{text} (allowed)"),))
        return Judgement(
            (
                f"gate: {name} {text}. Write the baseline anew (--peft-save-baseline), or --peft-allow-missing.",
            )
        )

    def _not_run(self, recipe: str, methods: Mapping[str, list[Record]]) -> Iterator[Judgement]:
        for method in self.baselines[recipe].methods(recipe):
            records = methods.get(method, [])
            if all(record.status == "skipped" for record in records):
                why = f" (skipped: {records[0].message})" if records else ""
                yield self._missing(
                    f"{recipe}-{method}",
                    f"is in the baseline {self.baselines[recipe]} and missing from the run{why}",
                )

    def _shifts(self, recipe: str, methods: Mapping[str, list[Record]]) -> Iterator[Judgement]:
        """Metrics that are worse over all methods by more than the tolerance, and not by chance."""
        baseline = self.baselines[recipe]
        worse: dict[Tolerance, list[float]] = {}
        for method, records in methods.items():
            good = [
                record
                for record in records
                if record.status == "ok" and (self.allow_reused or not is_reused(record))
            ]
            if good and (entry := baseline.entries.get((recipe, method))) is not None:
                for change in self._changes(entry, baseline, good):
                    worse.setdefault(change.tolerance, []).append(change.worse)
        for tolerance, changes in worse.items():
            mean, p = fmean(changes), shift_p(changes)
            if tolerance.is_exceeded(mean) and p < ALPHA / len(worse):
                down = sum(change > 0 for change in changes)
                told = f"{down} of {len(changes)} methods are worse in {tolerance.metric}, by {tolerance.said(mean)} on average"
                allowed = (
                    f"tolerance {tolerance.said(tolerance.amount)}; p = {p:.2g} across methods"
                )
                yield Judgement(
                    (f"gate: {recipe}: {told} ({allowed}): a common shift. Baseline: {baseline}.",)
                )

    def changes(self, records: Sequence[Record]) -> list[Change]:
        """Every metric of one method's finished cells beside its baseline; none where there is no such baseline."""
        good = [record for record in records if record.status == "ok"]
        baseline = self.baselines.get(good[0].recipe_name) if good else None
        entry = (
            baseline.entries.get((good[0].recipe_name, good[0].method_name)) if baseline else None
        )
        return self._changes(entry, baseline, good) if entry and baseline else []

    def _changes(self, entry: Entry, baseline: Baseline, records: Sequence[Record]) -> list[Change]:
        """Every metric that can be compared, then and now."""
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
        """Metrics that the baseline has and the run has not."""
        names = [tolerance.metric for tolerance in self.tolerances_for(records[0])]
        same_device = device_of(entry.environment) == device_of(records[0].environment)
        judged = [name for name in names if same_device or not METRICS[name].is_of_the_device]
        return [name for name in judged if entry.values(name) and not values_of(records, name)]


def is_reused(record: Record) -> bool:
    """Whether a record was taken from an earlier run."""
    return record.reused


def values_of(records: Sequence[Record], metric: str) -> list[float]:
    """The seeds' values that are there."""
    return present(record.metrics.get(metric) for record in records)


def device_of(environment: Mapping[str, Any]) -> tuple[str, Any]:
    """What times and memory depend on: the device, and on a CPU how many threads a cell had."""
    return str(environment.get("device_name")), environment.get("threads") if environment.get(
        "device"
    ) == "cpu" else None


def _explained(
    tolerance: Tolerance, before: list[float], now: list[float], others: Sequence[list[float]]
) -> float | None:
    """What the seeds' spread explains, in the tolerance's terms: relative figures are taken relative to their own baseline's mean."""

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
    """What a time may be due to beside the method, as V411 has it."""
    shares = [
        share for record in records if (share := record.metrics.get("busy_share")) is not None
    ]
    if not metric.endswith("_seconds") or min(shares, default=1.0) >= BUSY:
        return ""
    return f" The machine was busy: the training thread had a core for {min(shares):.0%} of the time (V411), so measure it again alone."


def _said_of_device(entry: Entry, record: Record) -> Iterator[str]:
    then, now = device_of(entry.environment), device_of(record.environment)
    if then != now:
        yield f"another device ({_device(then)} → {_device(now)}): time and memory are not compared, quality is"


def _device(device: tuple[str, Any]) -> str:
    return device[0] + (f", {device[1]} threads" if device[1] is not None else "")


def differences(entry: Entry, records: Sequence[Record]) -> list[str]:
    """What is not as it was when the baseline was measured: seeds, recipe and method, data, versions."""
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
    """{'budget': {'epochs': 2}} -> {'budget.epochs': '2'}; without device and seed, which are said elsewhere."""
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


def _some(differing: Sequence[str]) -> str:
    more = len(differing) - SHOWN_DIFFERENCES
    return "; ".join(differing[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
