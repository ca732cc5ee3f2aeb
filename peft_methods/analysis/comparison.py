"""Comparison of many records: one row per method with mean and deviation, ranking and findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from peft_methods.analysis import checks
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.margin import MARGIN
from peft_methods.analysis.ranking import Ranking, rank_methods
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.tasks.base import Predictions

if TYPE_CHECKING:
    from pandas import DataFrame

    from peft_methods.runs.results import Results


@dataclass(frozen=True)
class MetricSummary:
    """A metric of one method: mean and standard deviation over the `count` seeds that have a value.

    The deviation is None for one seed.
    """

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """One method on one recipe. `missing` has the records of seeds without a result."""

    recipe: str
    method: str
    metrics: dict[str, MetricSummary]
    seeds: tuple[int, ...]
    missing: tuple[Record, ...]

    @property
    def title(self) -> str:
        """The method's display name."""
        return title_of(self.method)

    def mean(self, name: str) -> float:
        """Return the metric's mean over seeds; nan if it is missing."""
        return self.metrics[name].mean if name in self.metrics else math.nan


@dataclass(frozen=True)
class Comparison:
    """Records of any number of runs.

    `notes` are printed under the table, such as settings that differ from the recipe's file.
    `silenced` has the ids of rules that are not checked; the table lists them.
    `predictions` has the predictions for the test examples by the record's fingerprint. Without
    them there are no paired comparisons, intervals or groups. Differences up to `margin` (0..1)
    count as none.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    predictions: Mapping[str, Predictions] = field(default_factory=dict, repr=False, compare=False)
    silenced: tuple[str, ...] = ()
    margin: float = MARGIN

    def rows(self) -> list[Row]:
        """Return one row per recipe and method; prerequisite runs have none.

        Methods are in the registry's order, unregistered ones last.
        """
        return list(self._rows)

    @cached_property
    def rows_by_recipe(self) -> dict[str, list[Row]]:
        """The rows of each recipe."""
        found: dict[str, list[Row]] = {}
        for row in self._rows:
            found.setdefault(row.recipe, []).append(row)
        return found

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        recipes = dict.fromkeys(recipe for recipe, _ in self._by_row)
        methods = dict.fromkeys([*METHODS, *(method for _, method in self._by_row)])
        keys = [
            (recipe, method)
            for recipe in recipes
            for method in methods
            if (recipe, method) in self._by_row
        ]
        return tuple(_row(recipe, method, self._by_row[recipe, method]) for recipe, method in keys)

    @cached_property
    def _by_row(self) -> dict[tuple[str, str], list[Record]]:
        """The records of each (recipe, method)."""
        found: dict[tuple[str, str], list[Record]] = {}
        for record in self.records:
            if record.role == "main":
                found.setdefault((record.recipe_name, record.method_name), []).append(record)
        return found

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Intervals, pairwise comparisons, groups and the Pareto front of each recipe."""
        return {
            recipe: rank_methods(
                {row.method: self._runs(recipe, row.method) for row in rows},
                {row.method: {name: row.mean(name) for name in METRICS} for row in rows},
                self._with_errors.get(recipe, {}),
                self.margin,
            )
            for recipe, rows in self.rows_by_recipe.items()
        }

    def runs_of(self, recipe: str, method: str) -> Sequence[Record]:
        """Return the main runs of a method."""
        return self._by_row.get((recipe, method), ())

    @cached_property
    def varying_alone(self) -> dict[str, list[Record]]:
        """The main runs whose seeds vary a single part, by that part."""
        found: dict[str, list[Record]] = {}
        for records in self._by_row.values():
            for record in records:
                vary = record.spec.recipe.budget.vary
                if len(vary) == 1:
                    found.setdefault(vary[0], []).append(record)
        return found

    def _runs(self, recipe: str, method: str) -> list[tuple[Record, Predictions | None]]:
        """Return a method's runs in the order of their seeds, with the predictions there are."""
        found = sorted(self._by_row[recipe, method], key=lambda record: record.seed)
        return [(record, self.predictions.get(record.fingerprint)) for record in found]

    def findings(self) -> list[Finding]:
        """Check these records with all validity rules that are not silenced."""
        return list(self._findings)

    @cached_property
    def _findings(self) -> tuple[Finding, ...]:
        return tuple(checks.run_checks(self.records, self.silenced))

    @cached_property
    def _with_errors(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The methods of each recipe with an error finding, and the ids of those rules."""
        found: dict[str, dict[str, dict[str, None]]] = {}
        for finding in self._findings:
            for recipe, method in finding.rows if finding.severity == "error" else ():
                found.setdefault(recipe, {}).setdefault(method, {})[finding.rule] = None
        return {
            recipe: {method: tuple(rules) for method, rules in of.items()}
            for recipe, of in found.items()
        }

    def to_pandas(self) -> DataFrame:
        """Return a data frame with one row per run and one column per metric.

        Prerequisite runs are included and marked in the column `source`.
        """
        import pandas as pd

        columns = ("recipe", "method", "seed", "source", "status", "message", *METRICS)
        return pd.DataFrame([_flat(record) for record in self.records], columns=list(columns))


def comparison_of(
    results: Results, silenced: tuple[str, ...] = (), margin: float = MARGIN
) -> Comparison:
    """Compare an experiment's records."""
    return Comparison(results.records, results.notes, results.predictions, silenced, margin)


def title_of(method: str) -> str:
    """Return a method's display name; for an unregistered method, its name."""
    return METHODS[method].title if method in METHODS else method


def _flat(record: Record) -> dict[str, object]:
    return {
        "recipe": record.recipe_name,
        "method": record.method_name,
        "seed": record.seed,
        "source": record.role != "main",
        "status": record.status,
        "message": record.message,
        **record.metrics,
    }


def _row(recipe: str, method: str, records: Sequence[Record]) -> Row:
    good = [record for record in records if record.status == "ok"]
    alike = of_usual_device(good)
    return Row(
        recipe=recipe,
        method=method,
        metrics={
            name: figure
            for name, metric in METRICS.items()
            if (figure := summarize(name, alike if metric.device_dependent else good)) is not None
        },
        seeds=tuple(record.seed for record in good),
        missing=tuple(record for record in records if record.status != "ok"),
    )


def of_usual_device(records: Sequence[Record]) -> list[Record]:
    """Return the records of the most common device, of equally common ones the first.

    Times and memory of different devices have no common mean.
    """
    names = [record.environment.get("device_name") for record in records]
    usual = max(names, key=names.count, default=None)
    return [record for record, name in zip(records, names, strict=True) if name == usual]


def summarize(name: str, records: Sequence[Record]) -> MetricSummary | None:
    """Return mean and sample standard deviation of a metric; None without any value.

    Missing and nan values are ignored.
    """
    found = [record.metrics.get(name) for record in records]
    values = [value for value in found if value is not None and not math.isnan(value)]
    if not values:
        return None
    mean = fmean(values)
    deviation = None
    if len(values) > 1:
        squares = [(value - mean) ** 2 for value in values]
        deviation = math.sqrt(math.fsum(squares) / (len(values) - 1))
    return MetricSummary(mean, deviation, len(values))
