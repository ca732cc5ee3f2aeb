"""Comparison of methods whose seeds were added until the differences were decided.

After the first seeds of every method, and after each further one, the best method is compared with
the others. A method is decided once it is worse than the best one or equal to it within the margin,
and then gets no more seeds. The procedure ends when all are decided or the limit is reached. A
verdict that was reached stays, whatever seeds are added later.

With a level for each look (see `spending`), the intervals of all looks hold together at 95 %:
Jennison & Turnbull, "Interim analyses: the repeated confidence interval approach" (1989). So any
rule may be used to stop, and both verdicts, a difference and equality, have an error rate of 5 % in
all. The levels spend less than half of that (`SPENT`): the seeds of a method that spreads far more
than the others are skewed, and then a test on few of them errs more often than its level says. The
error rates are measured by `pytest tests/analysis/test_sequential.py -m simulation -s`.

The result depends on the scores and the plan alone. So a report of stored records, and a session
that continues an earlier one, reach the same decisions at the same looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from peft_methods.analysis import spending
from peft_methods.analysis.pairs import ANY_SHARE, PairwiseComparison, best_first, compare_pairs
from peft_methods.analysis.samples import SEEDS_NEEDED, Array, Sample, sample_of, scale_of_scores
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.tasks.metrics import Metric

SPENT = 0.02  # by all looks; with 0.05, two methods of unlike spread err in 9 % of jobs
Scores = Mapping[str, Sequence[Array | None]]
Decided = dict[tuple[str, str], PairwiseComparison]


@dataclass(frozen=True)
class Decision:
    """The state after the last look.

    `samples` and `pairs` of the methods that can be compared; `seeds` is how many seeds of each
    method count. `undecided`: the methods that are neither worse than the best nor equal to it.
    `wanted`: the methods that need a further seed, with the number of seeds they should have; empty
    at the end.
    """

    samples: dict[str, Sample]
    pairs: tuple[PairwiseComparison, ...]
    seeds: dict[str, int]
    undecided: tuple[str, ...]
    wanted: dict[str, int] = field(default_factory=dict)


def decide(scores: Scores, plan: SeedPlan, margin: float, metric: Metric = ANY_SHARE) -> Decision:
    """Go through the looks of a plan, as far as there are scores.

    `scores` has one entry per trained seed of a method, in the order of the seeds: its scores of
    the test examples (n,), or None if the run has none. `margin` is in the unit of the metric.
    """
    seeds, decided = dict.fromkeys(scores, plan.first), Decided()
    levels = spending.levels(plan.first, plan.most, SPENT)
    scale = None if metric.is_share else scale_of_scores(chain.from_iterable(scores.values()))
    for count, level in enumerate(levels, start=plan.first):
        samples = _samples(scores, seeds, scale)
        order = best_first(samples, metric.sign())
        pairs = _with_verdicts(compare_pairs(samples, order, margin, level, metric), decided)
        open_methods = _undecided(order, pairs)
        state = Decision(samples, pairs, dict(seeds), open_methods)
        if not open_methods or count == plan.most:
            return state
        seeds |= dict.fromkeys((order[0], *open_methods), count + 1)
        lacking = {
            method: number for method, number in seeds.items() if len(scores[method]) < number
        }
        if wanted := {
            method: lacking[method] for method in (order[0], *open_methods) if method in lacking
        }:
            return Decision(samples, pairs, state.seeds, open_methods, wanted)
    raise AssertionError("the last look returns")


def _samples(scores: Scores, seeds: Mapping[str, int], scale: float | None) -> dict[str, Sample]:
    """Return the samples of the methods with enough results among their seeds that count."""
    found = {
        method: [one for one in of_method[: seeds[method]] if one is not None]
        for method, of_method in scores.items()
    }
    return {
        method: sample_of(np.stack(results), scale)
        for method, results in found.items()
        if len(results) >= SEEDS_NEEDED
    }


def _with_verdicts(
    pairs: Iterable[PairwiseComparison], decided: Decided
) -> tuple[PairwiseComparison, ...]:
    """Return the pairs, those that were decided differently before as they were then."""
    found = []
    for pair in pairs:
        earlier = decided.get((pair.first, pair.second))
        kept = pair if earlier is None or _kind(earlier) == _kind(pair) else earlier
        if _kind(kept) != "undecided":
            decided[kept.first, kept.second] = kept
            decided[kept.second, kept.first] = kept.reversed()
        found.append(kept)
    return tuple(found)


def _kind(pair: PairwiseComparison) -> str:
    return pair.verdict.split()[0]  # better, worse, equal or undecided


def _undecided(order: Sequence[str], pairs: Iterable[PairwiseComparison]) -> tuple[str, ...]:
    """Return the methods whose comparison with the best one is undecided."""
    return tuple(
        pair.second for pair in pairs if pair.first == order[0] and _kind(pair) == "undecided"
    )
