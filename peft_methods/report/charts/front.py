"""The data of a scatter chart, and its Pareto front of quality and one cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.pareto import pareto
from peft_methods.report.charts.base import RecipeComparison, join_titles
from peft_methods.report.charts.placing import Point
from peft_methods.tasks.metrics import Metric


@dataclass(frozen=True)
class Scatter:
    """Data of one scatter chart: `rows` that have both values, and optionally the plot's `size`."""

    compared: RecipeComparison
    cost: Metric
    rows: tuple[Row, ...]
    size: Point | None

    def at(self, row: Row) -> Point:
        """Return (cost, quality) of a row in the axes' units."""
        quality = self.compared.quality
        return self.cost.on_axis(row.mean(self.cost.name)), quality.on_axis(row.mean(quality.name))

    @property
    def front(self) -> list[Row]:
        """Rows on the Pareto front, cheapest first: no row is as good in both and better in one.

        Rows with an error finding are no candidates.
        """
        left_out = self.compared.ranking.left_out
        rows = [row for row in self.rows if row.method not in left_out]
        sign = self.compared.quality.sign()
        table = np.asarray([(cost, -sign * quality) for cost, quality in map(self.at, rows)])
        front = pareto(table.reshape(len(rows), 2))
        return sorted((row for row, on in zip(rows, front, strict=True) if on), key=self.at)

    @property
    def front_text(self) -> str:
        """The front in words."""
        quality, cost = self.compared.quality, self.cost
        front = [
            f"{row.title} ({quality.format(row.mean(quality.name))}, "
            f"{cost.format(row.mean(cost.name))})"
            for row in self.front
        ]
        if not front:
            return "No method is a candidate for the Pareto front."
        return f"Pareto front of these two, by means: {', '.join(front)}."

    @property
    def left_out_note(self) -> str:
        """Name the methods with an error finding, with a space before it; empty without any."""
        rows = [row for row in self.rows if row.method in self.compared.ranking.left_out]
        return f" Left out of both fronts, for an error finding: {join_titles(rows)}." * bool(rows)
