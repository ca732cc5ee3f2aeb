"""Several recipes together: each method's interquartile mean, profile, and chance to be better.

After Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021),
whose library is rliable. Means of a few runs on a few data sets depend on single runs; the
interquartile mean, the mean of the middle half of all runs, depends on them less.

**Normalised score**: (score - trivial) / (best - trivial), where `trivial` is the score of the
task's trivial baseline on the same data set (for classes: always predicting the most frequent one)
and `best` is the best possible one. So 0 is no better than no model, and 1 is perfect. Unlike the
score of full fine-tuning, both are constants of the data set: they have no variance over seeds, and
a bad run of full fine-tuning does not flatter every other method.

**Intervals**: a bootstrap that draws seeds again within each data set (stratified). Resampled seeds
spread less than seeds do, by a factor of (S - 1) / S in variance for S seeds, so deviations are
scaled up before: Rao & Wu, "Resampling inference with complex survey data" (1988). Few seeds know
their variance badly, so the interval of an interquartile mean is stretched as Student's t is wider
than the normal distribution, with degrees of freedom for the middle half of the runs. Without both,
it holds in 66 % for two seeds on two to four data sets. The intervals are about further seeds on
these data sets and test rows, not about other data sets.

The coverage is measured by `pytest tests/analysis/test_data_sets.py -m simulation -s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.learning_curve import main_part
from peft_methods.analysis.resampling import Resampled, improvement, iqm, resampled
from peft_methods.analysis.samples import Array
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record

LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval
THRESHOLDS = 101  # of a profile
DATA_SETS_NEEDED = 2

Interval = tuple[float, float]


class Excluded(Enum):
    """Reason why a method is not in the summary."""

    NOT_EVERYWHERE = "not_everywhere"  # has no result on some data set
    ERROR = "error"  # an error finding on some data set


@dataclass(frozen=True)
class Profile:
    """Share of a method's runs whose normalised score is above each threshold (thresholds).

    `low` and `high` are the pointwise 95 % interval; None for one seed.
    """

    thresholds: Array
    share: Array
    low: Array | None
    high: Array | None


@dataclass(frozen=True)
class MethodSummary:
    """One method over all data sets.

    `scores` (seeds, data sets) are normalised. `iqm` is their interquartile mean and `interval` its
    95 % interval, None for one seed. `raw_mean` is the mean of the metric itself over data sets,
    None if these have different metrics. `better` is the probability that a run of this method is
    better than one of the method with the highest `iqm` on the same data set, averaged over data
    sets, with its interval; None for that method itself. Ties count half.
    """

    scores: Array
    iqm: float
    interval: Interval | None
    raw_mean: float | None
    profile: Profile
    better: float | None = None
    better_interval: Interval | None = None


@dataclass(frozen=True)
class DataSetSummary:
    """All data sets together: `methods` by name, the highest interquartile mean first.

    `recipes` are the names of the recipes. `left_out` has those without a normalised score, such as
    ones with random weights. `excluded` has the methods that are not summarised, with the reason
    and the recipes that it holds for. `improvement` is the probability that a run of the first
    method is better than one of the second, by (first, second).
    """

    recipes: tuple[str, ...]
    methods: Mapping[str, MethodSummary]
    excluded: Mapping[str, tuple[Excluded, tuple[str, ...]]]
    left_out: tuple[str, ...]
    improvement: Mapping[tuple[str, str], float]

    @property
    def best(self) -> str:
        """The method with the highest interquartile mean."""
        return next(iter(self.methods))


def summarize_data_sets(comparison: Comparison) -> DataSetSummary | None:
    """Summarise the methods over all recipes of a comparison. None for fewer than two recipes.

    Sizes of a learning curve count as one recipe. A recipe's later sections do not count, nor do
    several models of one recipe, which have the same data.
    """
    by_recipe = _runs(comparison)
    scored = {name: runs for name, runs in by_recipe.items() if _anchors(runs) is not None}
    if len(scored) < DATA_SETS_NEEDED:
        return None
    names = dict.fromkeys([*METHODS, *(m for runs in scored.values() for m in runs)])
    known = [name for name in names if any(name in runs for runs in scored.values())]
    excluded: dict[str, tuple[Excluded, tuple[str, ...]]] = {}
    for method in known:
        lacking = tuple(name for name, runs in scored.items() if not runs.get(method))
        wrong = tuple(n for n in scored if method in comparison.rankings[n].left_out)
        if lacking:
            excluded[method] = Excluded.NOT_EVERYWHERE, lacking
        elif wrong:
            excluded[method] = Excluded.ERROR, wrong
    compared = [method for method in known if method not in excluded]
    found = _summaries(scored, compared)
    left_out = tuple(name for name in by_recipe if name not in scored)
    chances = {
        (first, second): improvement(found[first].scores, found[second].scores)
        for first in found
        for second in found
        if first != second
    }
    return DataSetSummary(tuple(scored), found, excluded, left_out, chances)


Runs = Mapping[str, list[Record]]  # finished main runs with a score, by method


def _runs(comparison: Comparison) -> dict[str, Runs]:
    """Return each recipe's finished runs by method, ordered by seed."""
    main = main_part(comparison)
    found: dict[str, dict[str, list[Record]]] = {}
    names = set(main.rankings)
    for record in sorted(main.records, key=lambda one: one.seed):
        name, recipe = record.recipe_name, record.spec.recipe
        # `Section.name` numbers the later sections of a recipe: 'NAME (2)'.
        if record.role != "main" or " (" in name or recipe.curve_of in names or recipe.models_of:
            continue
        of = found.setdefault(name, {})
        if record.status == "ok" and record.metrics.get(recipe.ranking_metric) is not None:
            of.setdefault(record.method_name, []).append(record)
    return {name: found[name] for name in main.rankings if name in found}


def _anchors(runs: Runs) -> tuple[float, float] | None:
    """Return the scores that become 0 and 1: trivial and best possible. None if not known."""
    record = next((one for records in runs.values() for one in records), None)
    if record is None or not record.spec.recipe.has_quality:
        return None
    metric = METRICS[record.spec.recipe.ranking_metric]
    best = metric.bounds[1 if metric.higher_is_better else 0]
    trivial = (record.data.get("trivial_baseline") or {}).get(metric.name)
    if trivial is None and metric.name == "accuracy":
        trivial = record.data.get("majority")
    return None if best is None or trivial is None or trivial == best else (trivial, best)


def _summaries(scored: Mapping[str, Runs], methods: list[str]) -> dict[str, MethodSummary]:
    scores = {method: _scores(scored, method) for method in methods}
    lowest = min((float(one.min()) for one in scores.values()), default=0.0)
    thresholds = np.linspace(min(lowest, 0.0), 1.0, THRESHOLDS)
    number = {method: place for place, method in enumerate(methods)}
    order = sorted(methods, key=lambda method: -iqm(scores[method]))
    best = resampled(scores[order[0]], number[order[0]]) if order else None
    found = {}
    for method in order:
        drawn = best if method == order[0] else resampled(scores[method], number[method])
        better: tuple[float | None, Interval | None] = (None, None)
        if method != order[0]:
            pair = improvement(scores[method], scores[order[0]])
            known = None if drawn is None or best is None else drawn.better_than(best)
            pairs = min(scores[method].size, scores[order[0]].size)
            better = pair, None if known is None else _share_interval(pair, known, pairs)
        found[method] = MethodSummary(
            scores[method],
            iqm(scores[method]),
            None if drawn is None else iqm_interval(scores[method], drawn),
            _raw_mean(scored, method),
            _profile(scores[method], drawn, thresholds),
            *better,
        )
    return found


def _scores(scored: Mapping[str, Runs], method: str) -> Array:
    """Return normalised scores (seeds, data sets): as many seeds as every data set has."""
    seeds = min(len(runs[method]) for runs in scored.values())
    columns = []
    for runs in scored.values():
        anchors = _anchors(runs)
        assert anchors is not None, "others are left out"
        trivial, best = anchors
        values = np.asarray([_score(record) for record in runs[method][:seeds]])
        columns.append((values - trivial) / (best - trivial))
    return np.stack(columns, axis=1)


def _score(record: Record) -> float:
    value = record.metrics[record.spec.recipe.ranking_metric]
    assert value is not None, "runs without a score are left out"
    return value


def _raw_mean(scored: Mapping[str, Runs], method: str) -> float | None:
    metrics = {runs[method][0].spec.recipe.ranking_metric for runs in scored.values()}
    if len(metrics) > 1:
        return None
    return float(np.mean([np.mean(list(map(_score, runs[method]))) for runs in scored.values()]))


def iqm_interval(scores: Array, drawn: Resampled) -> Interval:
    """Return the 95 % interval of the interquartile mean, given its scores and bootstrap draws."""
    from scipy.special import stdtrit

    seeds, data_sets = scores.shape
    freedom = max(data_sets * (seeds - 1) / 2, 2.0)
    stretch = stdtrit(freedom, LEVEL[1] / 100) / stdtrit(1e9, LEVEL[1] / 100)
    middle = iqm(scores)
    low, high = _interval(drawn.iqm)
    return middle - stretch * (middle - low), middle + stretch * (high - middle)


def _profile(scores: Array, drawn: Resampled | None, thresholds: Array) -> Profile:
    share = (scores[..., None] > thresholds).mean(axis=(0, 1))
    if drawn is None:
        return Profile(thresholds, share, None, None)
    low, high = np.percentile(drawn.shares_above(thresholds), LEVEL, axis=1)
    return Profile(thresholds, share, np.minimum(low, share), np.maximum(high, share))


def _share_interval(share: float, drawn: Array, pairs: int) -> Interval:
    """Return the 95 % interval of a probability, given its bootstrap draws.

    It also covers Wilson's interval (1927) for so many independent pairs of runs: where one method
    won every time, all draws are equal, but the next run may still lose.
    """
    from scipy.special import stdtrit

    low, high = _interval(drawn)
    squared = stdtrit(1e9, LEVEL[1] / 100) ** 2 / pairs
    middle = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return max(min(low, middle - half), 0.0), min(max(high, middle + half), 1.0)


def _interval(draws: Array) -> Interval:
    low, high = np.percentile(draws, LEVEL)
    return float(low), float(high)
