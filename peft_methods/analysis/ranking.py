"""Ranking of one recipe's methods: intervals, pairwise comparisons, groups and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from peft_methods.analysis import groups, pareto, significance
from peft_methods.analysis.margin import MARGIN, margin_in
from peft_methods.analysis.pairs import PairwiseComparison, best_first, compare_pairs
from peft_methods.analysis.samples import (
    SEEDS_NEEDED,
    Array,
    Sample,
    same_examples,
    sample_of,
    scale_of_scores,
)
from peft_methods.analysis.seed_variance import common_variance
from peft_methods.analysis.sequential import decide
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.tasks.base import Predictions, Task
from peft_methods.tasks.metrics import Metric
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
class SeedsAdded:
    """How a session that adds seeds until it is decided has gone, by method.

    `seeds`: how many seeds count. `undecided`: neither worse than the best method nor equal to it
    within the margin. `wanted`: how many seeds a method should have before the next look; empty at
    the end.
    """

    plan: SeedPlan
    seeds: dict[str, int]
    undecided: tuple[str, ...]
    wanted: dict[str, int]


@dataclass(frozen=True)
class Ranking:
    """Ranking of one recipe's methods by `metric` (its `Recipe.ranking_metric`).

    `order`: the compared methods, best first. `groups`: letters; methods that are not separable
    share one. `not_compared`: the methods that are not compared, with the reason. `pareto_optimal`:
    whether a method is Pareto-optimal in quality, time, memory and trainable parameters; None if
    one of these is missing. `left_out`: the methods with an error finding, with the ids of the
    rules; they are neither recommended nor candidates for the Pareto front. Up to `margin`, in the
    unit of the metric, a difference counts as none. `seeds_added` is None
    unless seeds were added until the comparison was decided. `samples` are the statistics of the
    compared methods' scores.
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
    seeds_added: SeedsAdded | None = None
    samples: dict[str, Sample] = field(default_factory=dict, repr=False, compare=False)

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
    """Rank methods, given each one's runs in the order of seeds, and mean metrics (nan if missing).

    Runs without a result only matter where seeds are added: they count as looked at.

    `left_out` are the methods with an error finding, with the ids of the rules. Up to `margin`
    (0..1; see `margin_in`) a difference counts as none.
    """
    records = [record for found in runs.values() for record, _ in found]
    finished = [record for record in records if record.status == "ok"]
    recipe = next((record.spec.recipe for record in (*finished, *records)), None)
    task = next(iter(TASKS.values())) if recipe is None else task_of(recipe)
    metric = task.metrics[0].name if recipe is None else recipe.ranking_metric
    scores, not_compared = _scores(runs, task, metric)
    plan = next((record.seed_plan for record in records if record.seed_plan is not None), None)
    level = next((one.data.get("trivial_baseline", {}).get(metric) for one in finished), None)
    in_unit = margin_in(METRICS[metric], margin, level)
    compared = _compared(scores, not_compared, METRICS[metric], in_unit, plan)
    sound = {method: values for method, values in means.items() if method not in left_out}
    return replace(
        compared, metric=metric, pareto_optimal=_front(metric, sound), left_out=dict(left_out)
    )


def _scores(
    runs: Mapping[str, RunResults], task: Task, metric: str
) -> tuple[dict[str, list[Array | None]], dict[str, NotCompared]]:
    """Return each method's scores by seed, None for a run without any, and who has no scores."""
    predicted = {
        method: [
            found if record.status == "ok" and record.metrics.get(metric) is not None else None
            for record, found in of_method
        ]
        for method, of_method in runs.items()
    }
    known = [one for found in predicted.values() for one in found if one is not None]
    reference = known[0] if known else None
    not_compared = {
        method: reason
        for method, found in predicted.items()
        if (reason := _reason_left_out(found, reference)) is not None
    }
    scores = {
        method: [None if one is None else task.example_scores(one, metric) for one in found]
        for method, found in predicted.items()
        if method not in not_compared
    }
    return scores, not_compared


def _reason_left_out(
    found: Sequence[Predictions | None], reference: Predictions | None
) -> NotCompared | None:
    """Return why a method's predictions cannot be compared with the reference, if they cannot."""
    known = [one for one in found if one is not None]
    if not known or reference is None:
        return NotCompared.NO_PREDICTIONS
    same = same_examples([reference.labels, *(one.labels for one in known)])
    return None if same else NotCompared.OTHER_EXAMPLES


def _compared(
    scores: Mapping[str, Sequence[Array | None]],
    not_compared: dict[str, NotCompared],
    metric: Metric,
    margin: float,
    plan: SeedPlan | None,
) -> Ranking:
    """Return order, intervals, pairs and groups.

    A method with one seed gets an interval (of that one model) and is added to `not_compared`.
    """
    every = [one for found in scores.values() for one in found]
    scale = None if metric.is_share else scale_of_scores(every)
    samples = {method: _sample(found, scale) for method, found in scores.items()}
    several = {method: sample for method, sample in samples.items() if sample.seeds >= SEEDS_NEEDED}
    not_compared |= {method: NotCompared.ONE_SEED for method in samples if method not in several}
    common = common_variance(list(several.values())) if several else None
    intervals = {
        method: metric.clipped(significance.interval(sample, common if method in several else None))
        for method, sample in samples.items()
    }
    order = best_first(several, metric.sign())
    added = None
    if plan is None:
        compared, pairs = several, compare_pairs(several, order, margin, metric=metric)
    else:
        decision = decide({method: scores[method] for method in order}, plan, margin, metric)
        compared, pairs = decision.samples, decision.pairs
        order = best_first(compared, metric.sign())
        added = SeedsAdded(plan, decision.seeds, decision.undecided, decision.wanted)
    separable = [
        (order.index(pair.first), order.index(pair.second)) for pair in pairs if pair.is_separable
    ]
    letters = dict(zip(order, groups.letters(len(order), separable), strict=True))
    return Ranking(
        "", order, intervals, pairs, letters, not_compared, {}, {}, margin, added, compared
    )


def _sample(scores: Sequence[Array | None], scale: float | None) -> Sample:
    return sample_of(np.stack([one for one in scores if one is not None]), scale)


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
