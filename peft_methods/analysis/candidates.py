"""Methods of one recipe that may be recommended, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.analysis.questions import QuestionKind, Recommendation, question
from peft_methods.analysis.ranking import Ranking
from peft_methods.profiling.metrics import METRICS


def describe_comparison(pair: PairwiseComparison) -> str:
    """Describe a comparison: its verdict, and the interval of the difference in points."""
    low, high = 100 * pair.low, 100 * pair.high
    if pair.is_separable and low * high > 0:
        ends = sorted((abs(low), abs(high)))
        return f"{pair.verdict}: {ends[0]:.1f} to {ends[1]:.1f}"
    return f"{pair.verdict}: {low:+.1f} to {high:+.1f}"


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
        asked = question(kind, self.limits, self.ranking.margin)
        return Recommendation(self.recipe, kind, asked, method, text, against, highest)

    @property
    def metric(self) -> str:
        """The quality metric's name, as used within a sentence."""
        return METRICS[self.ranking.metric].in_text

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

    def alike(self, best: Row) -> list[Row]:
        """Return the other rows that may be as good as the best.

        Not separable from it and, where a single seed leaves no comparison, of an interval that
        overlaps its own. Rows that are separably worse than another such row are left out.
        """
        found = [row for row in self.rows if row is not best and self._may_be_as_good(row, best)]
        return [row for row in found if not any(self._is_worse(row, other) for other in found)]

    def _may_be_as_good(self, row: Row, best: Row) -> bool:
        if (pair := self.ranking.pair(row.method, best.method)) is not None:
            return not pair.is_separable
        known = self.ranking.intervals
        return (
            best.method in known
            and row.method in known
            and known[row.method][1] >= known[best.method][0]
        )

    def _is_worse(self, row: Row, other: Row) -> bool:
        pair = self.ranking.pair(row.method, other.method)
        return pair is not None and pair.verdict == "worse"

    def equal(self, best: Row) -> list[Row]:
        """Return the other rows that are equal to the best within the margin."""
        pairs = [(row, self.ranking.pair(row.method, best.method)) for row in self.rows]
        return [row for row, pair in pairs if pair is not None and pair.is_equal]

    def not_compared(self, best: Row) -> list[Row]:
        """Return the other rows with a quality that were not compared with the best."""
        return [
            row
            for row in self.rows
            if row is not best
            and not math.isnan(self.quality(row))
            and self.ranking.pair(row.method, best.method) is None
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
