"""The metrics of one recipe in a baseline and in a session, compared under the noise of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from peft_methods.analysis.assumptions import BY_PACE, assumed_noise
from peft_methods.analysis.baseline import Baseline, Entry, present
from peft_methods.analysis.regression_report import Change
from peft_methods.analysis.samples import SEEDS_NEEDED
from peft_methods.analysis.session_change import Family, MetricNoise
from peft_methods.analysis.spec_changes import device_of
from peft_methods.analysis.tolerances import Tolerance
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record

PACE = "pace_seconds"
Values = Mapping[str, Sequence[float | None]]  # of each metric, one per seed


@dataclass(frozen=True)
class MetricComparison:
    """One metric of a recipe: its noise, and the session's values by method in the same unit."""

    tolerance: Tolerance
    noise: MetricNoise
    now: Mapping[str, tuple[float, ...]]
    by_pace: bool


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
        """Return the tolerances of metrics that may be compared on the record's device."""
        same = device_of(self.entries[method].environment) == device_of(record.environment)
        return [
            tolerance
            for tolerance in self.tolerances
            if same or not METRICS[tolerance.metric].device_dependent
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
        sessions = {
            name: [one.metrics for one in entry.sessions if one.values(metric)]
            for name, entry in self.entries.items()
        }
        today = {name: _columns(records) for name, records in by_method.items()}
        by_pace = metric in BY_PACE and all(
            any(values_of(one, metric, by_pace=True) for one in side)
            for name in sessions
            for side in (sessions[name], [today[name]] if name in today else [])
            if side
        )

        def values(of: Values) -> list[float]:
            return values_of(of, metric, by_pace=by_pace)

        before = {
            name: tuple(tuple(found) for one in every if (found := values(one)))
            for name, every in sessions.items()
        }
        before = {name: found for name, found in before.items() if found}
        now = {
            name: tuple(found)
            for name in today
            if name in before and (found := values(today[name]))
        }
        if not now:
            return None
        levels = {name: fmean(map(fmean, found)) for name, found in before.items()}
        assumed = assumed_noise(
            tolerance, by_pace=by_pace, level=fmean(levels[name] for name in now)
        )
        scaled = {
            name: tuple(_scaled(tolerance, levels[name], session) for session in found)
            for name, found in before.items()
        }
        return MetricComparison(
            tolerance,
            MetricNoise(scaled, assumed, self._family()),
            {name: _scaled(tolerance, levels[name], found) for name, found in now.items()},
            by_pace,
        )

    def _family(self) -> Family:
        judged = [
            tolerance
            for tolerance in self.tolerances
            if any(entry.values(tolerance.metric) for entry in self.entries.values())
        ]
        drifting = sum(assumed_noise(one, by_pace=False, level=1.0).drift > 0 for one in judged)
        return Family(max(1, len(self.entries)), max(1, len(judged)), drifting)


def values_of(metrics: Values, metric: str, *, by_pace: bool = False) -> list[float]:
    """Return a metric's value of each seed, without missing ones; `by_pace` in units of the pace.

    Times are divided by the time of the calibration loop, and rates multiplied by it.
    """
    values = metrics.get(metric, ())
    if not by_pace:
        return present(values)
    paces, power = metrics.get(PACE, ()), BY_PACE[metric]
    return present(
        value * pace**power if value is not None and pace else None
        for value, pace in zip(values, paces, strict=False)
    )


def recorded(records: Iterable[Record], metric: str) -> list[float]:
    """Return the metric's value of each record, without missing ones."""
    return present(record.metrics.get(metric) for record in records)


def _columns(records: Iterable[Record]) -> dict[str, list[float | None]]:
    """Return the metrics of records as a baseline holds them: a value per seed."""
    found = list(records)
    names = dict.fromkeys(name for record in found for name in record.metrics)
    return {name: [record.metrics.get(name) for record in found] for name in names}


def _scaled(tolerance: Tolerance, level: float, values: Iterable[float]) -> tuple[float, ...]:
    return tuple(tolerance.worse(level, value) for value in values)


def _change(one: MetricComparison, method: str, entry: Entry, records: Sequence[Record]) -> Change:
    """Build the change of one method, with the values as they were measured."""
    metric, now = one.tolerance.metric, one.now[method]
    then = [found for session in entry.sessions if (found := session.values(metric))]
    today = recorded(records, metric)
    worse = one.noise.figures(method, now).worse
    paces = [fmean(session.values(PACE)) for session in entry.sessions if session.values(PACE)]
    pace = fmean(recorded(records, PACE)) / fmean(paces) - 1 if one.by_pace else None
    return Change(
        one.tolerance,
        fmean(map(fmean, then)),
        fmean(today),
        worse,
        one.noise.method_change(method, now) if abs(worse) != float("inf") else 0.0,
        "seeds and drift" if one.noise.assumed.drift else "seeds",
        limit_of(one, method),
        pace,
    )


def limit_of(one: MetricComparison, method: str) -> str:
    """Say what of the noise was assumed instead of measured, and what would measure it."""
    assumed, limits, needs = one.noise.assumed, [], []
    groups = [*(group for found in one.noise.baseline.values() for group in found), one.now[method]]
    if max(map(len, groups)) < SEEDS_NEEDED and assumed.seeds != 0:
        limits.append(f"one seed{_deviation(one.tolerance, assumed.seeds, 'between seeds')}")
        needs.append("two seeds or more")
    if assumed.drift and one.noise.drift.sessions < 2:
        limits.append(
            "one session in the baseline"
            f"{_deviation(one.tolerance, assumed.drift, 'between sessions')}"
        )
        needs.append("more sessions in the baseline" + ("" if one.by_pace else ", or its pace"))
    return f"{'; '.join(limits)}; needs {' and '.join(needs)}" if limits else ""


def _deviation(tolerance: Tolerance, deviation: float | None, where: str) -> str:
    if deviation is None:
        return ""
    return f" (a standard deviation of {tolerance.formatted(deviation)} {where} is assumed)"
