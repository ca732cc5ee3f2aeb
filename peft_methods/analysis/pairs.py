"""Comparison of every two methods of a recipe, with its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from peft_methods.analysis import significance
from peft_methods.analysis.margin import MARGIN, margin_text
from peft_methods.analysis.samples import Sample
from peft_methods.tasks.metrics import Metric, quality

ANY_SHARE = quality("quality", "Quality")  # the higher the better


@dataclass(frozen=True)
class PairwiseComparison:
    """Comparison of two methods on the same test examples.

    `difference` is first minus second of their `metric`, in its unit; `low` and `high` are its
    interval.
    The intervals of all pairs hold simultaneously at 95 %. `p` is adjusted by Holm's method over
    all pairs of the recipe. Up to `margin` (in the metric's unit) a difference counts as none.
    `wins` is the probability that a new seed of the first is better than a new seed of the second
    on these test examples; None if it is not known.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    margin: float = MARGIN
    wins: float | None = None
    metric: Metric = ANY_SHARE

    @property
    def is_separable(self) -> bool:
        """Whether the difference is significant (error rate 5 % over all pairs)."""
        return self.p < significance.ALPHA

    @property
    def equal_within(self) -> float:
        """The smallest margin within which the two are equal: their interval is inside."""
        return max(abs(self.low), abs(self.high))

    @property
    def is_equal(self) -> bool:
        """Whether the two are equal within the margin and not separable."""
        return not self.is_separable and self.equal_within <= self.margin

    @property
    def verdict(self) -> str:
        """What is known of the first method against the second.

        'better', 'worse', 'equal within 0.8 points', or 'undecided'.
        """
        if self.is_separable:
            return "better" if self.metric.sign() * self.difference > 0 else "worse"
        equal = f"equal within {margin_text(self.equal_within, self.metric)}"
        return equal if self.is_equal else "undecided"

    def reversed(self) -> PairwiseComparison:
        """Return the comparison with first and second exchanged."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            wins=None if self.wins is None else 1 - self.wins,
        )


def compare_pairs(
    samples: Mapping[str, Sample],
    order: Sequence[str],
    margin: float,
    alpha: float = significance.ALPHA,
    metric: Metric = ANY_SHARE,
) -> tuple[PairwiseComparison, ...]:
    """Compare every two methods; the first of a pair is the one that comes first in `order`.

    `alpha` is the error rate over all pairs. Each method needs two seeds or more.
    """
    found = significance.differences([samples[method] for method in order], alpha)
    ends = [metric.clipped_difference(pair) for pair in zip(found.low, found.high, strict=True)]
    return tuple(
        PairwiseComparison(
            first=order[first],
            second=order[second],
            difference=float(found.difference[index]),
            low=float(ends[index][0]),
            high=float(ends[index][1]),
            p=float(found.p[index]),
            margin=margin,
            wins=float(found.wins[index] if metric.sign() > 0 else 1 - found.wins[index]),
            metric=metric,
        )
        for index, (first, second) in enumerate(found.pairs)
    )


def best_first(samples: Mapping[str, Sample], sign: int) -> tuple[str, ...]:
    """Order the methods by their means. `sign` is 1 if higher is better, else -1."""
    return tuple(sorted(samples, key=lambda method: -sign * float(samples[method].mean)))
