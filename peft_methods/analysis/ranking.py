"""Ranking of one recipe's methods: intervals, pairwise comparisons, groups and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from peft_methods.analysis import groups, pareto, significance
from peft_methods.analysis.margin import MARGIN, points
from peft_methods.analysis.samples import SEEDS_NEEDED, Sample, sample_of
from peft_methods.analysis.seed_variance import common_variance
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.tasks.base import Predictions
from peft_methods.tasks.registry import TASKS, task_of

RunResults = Sequence[tuple[Record, Predictions | None]]
COSTS = (
    "train_seconds",
    "peak_memory_bytes",
    "trainable_parameters",
)  # with quality, the axes of the Pareto front


class NotCompared(Enum):
    """Reason why a method is not compared with the others."""

    ONE_SEED = "one_seed"  # no spread over seeds
    OTHER_EXAMPLES = "other_examples"  # tested on other examples than the rest
    NO_PREDICTIONS = "no_predictions"  # the test predictions were not kept


@dataclass(frozen=True)
class PairwiseComparison:
    """Comparison of two methods on the same test examples.

    `difference` is first minus second of their metric, in 0..1; `low` and `high` are its interval.
    The intervals of all pairs hold simultaneously at 95 %. `p` is adjusted by Holm's method over
    all pairs of the recipe. Up to `margin` (0..1) a difference counts as none. `wins` is the
    probability that a new seed of the first is better than a new seed of the second on these test
    examples; None if it is not known.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    margin: float = MARGIN
    wins: float | None = None

    @property
    def is_separable(self) -> bool:
        """Whether the difference is significant (error rate 5 % over all pairs)."""
        return self.p < significance.ALPHA

    @property
    def equal_within(self) -> float:
        """The smallest margin (0..1) within which the two are equal: their interval is inside."""
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
            return "better" if self.difference > 0 else "worse"
        return f"equal within {points(self.equal_within)}" if self.is_equal else "undecided"

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


@dataclass(frozen=True)
class Ranking:
    """Ranking of one recipe's methods by `metric` (its `data.select_by`).

    `order`: the compared methods, best first. `groups`: letters; methods that are not separable
    share one. `not_compared`: the methods that are not compared, with the reason. `pareto_optimal`:
    whether a method is Pareto-optimal in quality, time, memory and trainable parameters; None if
    one of these is missing. `left_out`: the methods with an error finding, with the ids of the
    rules; they are neither recommended nor candidates for the Pareto front. `samples`: the scores
    that the comparison rests on, by method.
    """

    metric: str
    order: tuple[str, ...]
    intervals: dict[str, tuple[float, float]]
    pairs: tuple[PairwiseComparison, ...]
    groups: dict[str, str]
    not_compared: dict[str, NotCompared]
    pareto_optimal: dict[str, bool | None]
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    margin: float = MARGIN
    samples: Mapping[str, Sample] = field(default_factory=dict, repr=False, compare=False)

    def pair(self, first: str, second: str) -> PairwiseComparison | None:
        """Return the comparison of two methods as first minus second; None if there is none."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair if pair.first == first else pair.reversed()
        return None

    def against_best(self, method: str) -> PairwiseComparison | None:
        """Compare a method with the one of the highest mean; None for that method itself."""
        return self.pair(method, self.order[0]) if self.order and method != self.order[0] else None


def rank_methods(
    runs: Mapping[str, RunResults],
    means: Mapping[str, Mapping[str, float]],
    left_out: Mapping[str, tuple[str, ...]],
    margin: float = MARGIN,
) -> Ranking:
    """Rank methods, given each one's finished runs and mean metrics (nan where missing).

    `left_out` are the methods with an error finding, with the ids of the rules. Up to `margin`
    (0..1) a difference counts as none.
    """
    records = [record for found in runs.values() for record, _ in found]
    task = task_of(records[0].spec.recipe) if records else next(iter(TASKS.values()))
    metric = records[0].spec.recipe.selection_metric if records else task.metrics[0].name
    predicted = {method: _predicted(found, metric) for method, found in runs.items()}
    reference = next((one for found in predicted.values() for one in found), None)
    samples: dict[str, Sample] = {}
    not_compared: dict[str, NotCompared] = {}
    for method, found in predicted.items():
        reason = _reason_left_out(found, reference)
        if reason is not None:
            not_compared[method] = reason
        else:
            scores = [task.example_scores(predictions, metric) for predictions in found]
            samples[method] = sample_of(np.stack(scores))
    compared = _compared(samples, not_compared, METRICS[metric].sign(), margin)
    sound = {method: values for method, values in means.items() if method not in left_out}
    front = _front(metric, sound)
    return Ranking(metric, *compared, not_compared, front, dict(left_out), margin, samples)


def _predicted(runs: RunResults, metric: str) -> list[Predictions]:
    """Return the predictions of the runs that have a value of the metric."""
    return [
        predictions
        for record, predictions in runs
        if predictions is not None and record.metrics.get(metric) is not None
    ]


def _reason_left_out(found: list[Predictions], reference: Predictions | None) -> NotCompared | None:
    """Return why a method's predictions cannot be compared with the reference, if they cannot."""
    if not found or reference is None:
        return NotCompared.NO_PREDICTIONS
    same = all(np.array_equal(one.labels, reference.labels) for one in found)
    return None if same else NotCompared.OTHER_EXAMPLES


def _compared(
    samples: Mapping[str, Sample],
    not_compared: dict[str, NotCompared],
    sign: int,
    margin: float,
) -> tuple[
    tuple[str, ...], dict[str, tuple[float, float]], tuple[PairwiseComparison, ...], dict[str, str]
]:
    """Return order, intervals, pairs and groups.

    A method with one seed gets an interval (of that one model) and is added to `left_out`.
    """
    several = {method: sample for method, sample in samples.items() if sample.seeds >= SEEDS_NEEDED}
    not_compared |= {method: NotCompared.ONE_SEED for method in samples if method not in several}
    common = common_variance(list(several.values())) if several else None
    intervals = {
        method: significance.interval(sample, common if method in several else None)
        for method, sample in samples.items()
    }
    order = tuple(sorted(several, key=lambda method: -sign * float(several[method].mean)))
    found = significance.differences([several[method] for method in order])
    pairs = tuple(
        PairwiseComparison(
            first=order[first],
            second=order[second],
            difference=float(found.difference[index]),
            low=float(found.low[index]),
            high=float(found.high[index]),
            p=float(found.p[index]),
            margin=margin,
            wins=float(found.wins[index]),
        )
        for index, (first, second) in enumerate(found.pairs)
    )
    separable = [
        indices for indices, pair in zip(found.pairs, pairs, strict=True) if pair.is_separable
    ]
    return (
        order,
        intervals,
        pairs,
        dict(zip(order, groups.letters(len(order), separable), strict=True)),
    )


def _front(metric: str, means: Mapping[str, Mapping[str, float]]) -> dict[str, bool | None]:
    """Return which methods are Pareto-optimal.

    Metrics missing for every method (quality with random weights) are ignored.
    """
    costs = [
        [-METRICS[name].sign() * values[name] for name in (metric, *COSTS)]
        for values in means.values()
    ]
    table = np.asarray(costs, dtype=np.float64).reshape(len(costs), 1 + len(COSTS))
    table = table[:, ~np.isnan(table).all(axis=0)]
    if not table.shape[1]:
        return dict.fromkeys(means)
    return dict(zip(means, pareto.pareto(table), strict=True))
