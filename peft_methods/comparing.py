"""Many records -> one comparison: a row a method, with mean and spread over seeds, standings and findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from peft_methods import validity
from peft_methods.methods import METHODS
from peft_methods.metrics import METRICS
from peft_methods.quality import Predictions
from peft_methods.records import Record
from peft_methods.standing import Standing, standing_of
from peft_methods.validity import Finding

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Figure:
    """A metric of one method: mean over the seeds that yielded it, and their standard deviation (None for one seed)."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """One method on one recipe. `missing` are the records of seeds that yielded nothing."""

    recipe: str
    method: str
    figures: dict[str, Figure]
    seeds: tuple[int, ...]
    missing: tuple[Record, ...]

    @property
    def title(self) -> str:
        """The method's name as people write it."""
        return title_of(self.method)

    def mean(self, name: str) -> float:
        """The metric's mean over seeds; nan where it is missing."""
        return self.figures[name].mean if name in self.figures else math.nan


@dataclass(frozen=True)
class Comparison:
    """Records of any number of cells. `notes` are said under the table (what options changed in the recipe).

    `silenced` are the ids of rules that are not asked, which the table says.
    `predictions` are those of the test examples by the record's identity; without them nothing is compared example by
    example, and there are no intervals and no groups.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    predictions: Mapping[str, Predictions] = field(default_factory=dict, repr=False, compare=False)
    silenced: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        """A row a recipe and method, in the registry's order, methods that it does not know last; sources have none."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        recipes = dict.fromkeys(recipe for recipe, _ in self._by_row)
        methods = dict.fromkeys([*METHODS, *(method for _, method in self._by_row)])
        named = [
            (recipe, method)
            for recipe in recipes
            for method in methods
            if (recipe, method) in self._by_row
        ]
        return tuple(_row(recipe, method, self._by_row[recipe, method]) for recipe, method in named)

    @cached_property
    def _by_row(self) -> dict[tuple[str, str], list[Record]]:
        """Each row's records."""
        found: dict[tuple[str, str], list[Record]] = {}
        for record in self.records:
            if not record.is_source:
                found.setdefault((record.recipe_name, record.method_name), []).append(record)
        return found

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """For each recipe: intervals, every two methods compared, groups, and the Pareto front."""
        rows = self.rows()
        return {
            recipe: standing_of(
                {
                    row.method: self._judged(recipe, row.method)
                    for row in rows
                    if row.recipe == recipe
                },
                {
                    row.method: {name: row.mean(name) for name in METRICS}
                    for row in rows
                    if row.recipe == recipe
                },
            )
            for recipe in dict.fromkeys(row.recipe for row in rows)
        }

    def _judged(self, recipe: str, method: str) -> list[tuple[Record, Predictions | None]]:
        """A method's finished cells with their predictions."""
        found = self._by_row[recipe, method]
        return [
            (record, self.predictions.get(record.identity))
            for record in found
            if record.status == "ok"
        ]

    def findings(self) -> list[Finding]:
        """What the validity rules that are not silenced say about these records."""
        return validity.judge(self.records, self.silenced)

    def to_pandas(self) -> DataFrame:
        """A row a cell, a column a metric; sources included and marked."""
        import pandas as pd

        columns = ("recipe", "method", "seed", "source", "status", "message", *METRICS)
        return pd.DataFrame([_flat(record) for record in self.records], columns=list(columns))


def title_of(method: str) -> str:
    """A method's name as people write it; one that is not registered here has no other than its own."""
    return METHODS[method].title if method in METHODS else method


def _flat(record: Record) -> dict[str, object]:
    return {
        "recipe": record.recipe_name,
        "method": record.method_name,
        "seed": record.seed,
        "source": record.is_source,
        "status": record.status,
        "message": record.message,
        **record.metrics,
    }


def _row(recipe: str, method: str, records: Sequence[Record]) -> Row:
    good = [record for record in records if record.status == "ok"]
    return Row(
        recipe=recipe,
        method=method,
        figures={name: figure for name in METRICS if (figure := summarize(name, good)) is not None},
        seeds=tuple(record.seed for record in good),
        missing=tuple(record for record in records if record.status != "ok"),
    )


def summarize(name: str, records: Sequence[Record]) -> Figure | None:
    """Mean and sample standard deviation of a metric; missing and NaN values do not count, no value is None."""
    values = [
        value
        for record in records
        if (value := record.metrics.get(name)) is not None and not math.isnan(value)
    ]
    if not values:
        return None
    mean = fmean(values)
    return Figure(
        mean,
        math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
        if len(values) > 1
        else None,
        len(values),
    )
