"""Methods of one recipe that may be recommended, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.questions import QuestionKind, Recommendation, question
from peft_methods.analysis.ranking import PairwiseComparison, Ranking
from peft_methods.profiling.metrics import METRICS


def describe_comparison(pair: PairwiseComparison) -> str:
    """Describe a comparison: whether it is separable, and the interval of its difference."""
    low, high = 100 * pair.low, 100 * pair.high
    if pair.is_separable and low * high > 0:
        return f"separable: {min(abs(low), abs(high)):.1f} to {max(abs(low), abs(high)):.1f}"
    return f"{'separable' if pair.is_separable else 'not separable'}: {low:+.1f} to {high:+.1f}"


CLOSE = 0.01  # "within 1 point of the best"
UNPAIRED = "test predictions to compare them by are missing"


@dataclass(frozen=True)
class Candidates:
    """The methods of one recipe that are within the limits."""

    recipe: str
    rows: tuple[Row, ...]
    ranking: Ranking
    limits: Constraints

    def answer(
        self,
        kind: QuestionKind,
        method: str | None,
        text: str,
        against: PairwiseComparison | None = None,
        highest: str | None = None,
    ) -> Recommendation:
        """Return a recommendation with the question's text."""
        asked = question(kind, self.limits)
        return Recommendation(self.recipe, kind, asked, method, text, against, highest)

    @property
    def metric(self) -> str:
        """The quality metric's name, as used within a sentence."""
        return METRICS[self.ranking.metric].title.lower()

    def cheapest(self, name: str, rows: Sequence[Row] | None = None) -> Row | None:
        """Return the row with the lowest value of a metric; None if no row has one."""
        known = [row for row in (self.rows if rows is None else rows) if name in row.metrics]
        return min(known, key=lambda row: row.mean(name)) if known else None

    def best(self) -> Row | None:
        """Return the row with the highest quality."""
        known = [row for row in self.rows if self.ranking.metric in row.metrics]
        return max(known, key=self.quality) if known else None

    def quality(self, row: Row) -> float:
        """Return the row's mean of the recipe's selection metric."""
        return row.mean(self.ranking.metric)

    def not_separable(self, best: Row) -> list[Row]:
        """Return the other rows that were compared with the best and are not separable from it."""
        pairs = [
            (row, self.ranking.pair(best.method, row.method))
            for row in self.rows
            if row is not best
        ]
        return [row for row, pair in pairs if pair is not None and not pair.is_separable]

    def overlapping(self, best: Row) -> list[Row]:
        """Return the other rows whose interval overlaps that of the best.

        With one seed these are intervals of single models on these test examples.
        """
        known = self.ranking.intervals
        if best.method not in known:
            return []
        return [
            row
            for row in self.rows
            if row is not best
            and row.method in known
            and known[row.method][1] >= known[best.method][0]
        ]

    def formatted(self, row: Row, name: str) -> str:
        """Format a row's mean of a metric with its unit."""
        return METRICS[name].format(row.mean(name))

    def distance(self, row: Row, best: Row) -> tuple[str, PairwiseComparison | None]:
        """Describe how far a row's quality is from the best; also return the comparison used."""
        if math.isnan(self.quality(row)):
            return "its quality is not known", None
        if row is best:
            return f"{self.formatted(row, self.ranking.metric)}, the highest", None
        pair = self.ranking.pair(row.method, best.method)
        points = 100 * (self.quality(best) - self.quality(row))
        lacking = (
            "one seed: no spread to compare with"
            if has_one_seed(row, best)
            else f"not compared: {UNPAIRED}"
        )
        verdict = describe_comparison(pair) if pair else lacking
        quality = self.formatted(row, self.ranking.metric)
        return f"{quality}, {points:.1f} points below {best.title} ({verdict})", pair


def has_one_seed(*rows: Row) -> bool:
    """Whether any of the rows has fewer than two seeds."""
    return any(len(row.seeds) < 2 for row in rows)
