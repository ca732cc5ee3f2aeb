"""How the methods of one recipe stand to one another: intervals, every two compared, groups, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from peft_methods import statistics
from peft_methods.metrics import METRICS
from peft_methods.quality import Predictions
from peft_methods.records import Record
from peft_methods.statistics import Array, Sample

Cells = Sequence[tuple[Record, Predictions | None]]
COSTS = (
    "train_seconds",
    "peak_memory_bytes",
    "trainable_parameters",
)  # beside quality, what the Pareto front is over


@dataclass(frozen=True)
class Pair:
    """Two methods on the same test examples: `difference` of their metric (first less second, in 0..1) with an interval.

    The intervals of all pairs hold at once at 95 %; `p` is Holm's over all pairs of the recipe.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_separable(self) -> bool:
        """Whether seeds and examples together leave no doubt which of the two is better (5 % over all pairs)."""
        return self.p < statistics.ALPHA

    def turned(self) -> Pair:
        """The same, second less first."""
        return Pair(self.second, self.first, -self.difference, -self.high, -self.low, self.p)


@dataclass(frozen=True)
class Standing:
    """One recipe's methods by `metric` (its `data.select_by`). A method that cannot be judged is in none of these.

    `order`: compared methods, best first. `groups`: letters; methods that are not separable share one. `left_out`: methods
    that are not compared, and why. `on_front`: whether no other is better in one of quality, time, memory and parameters
    and worse in none; None where a figure is missing.
    """

    metric: str
    order: tuple[str, ...]
    intervals: dict[str, tuple[float, float]]
    pairs: tuple[Pair, ...]
    groups: dict[str, str]
    left_out: dict[str, str]
    on_front: dict[str, bool | None]

    def pair(self, first: str, second: str) -> Pair | None:
        """The pair seen from `first`; None where the two are not compared."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair if pair.first == first else pair.turned()
        return None

    def against_best(self, method: str) -> Pair | None:
        """How a method differs from the best one by mean; None for that one itself."""
        return self.pair(method, self.order[0]) if self.order and method != self.order[0] else None


def standing_of(cells: Mapping[str, Cells], means: Mapping[str, Mapping[str, float]]) -> Standing:
    """The standing of methods given their cells and the means of their metrics (nan where missing)."""
    records = [record for found in cells.values() for record, _ in found]
    metric = str(records[0].cell["recipe"]["data"]["select_by"]) if records else "accuracy"
    judged = {method: _predicted(found, metric) for method, found in cells.items()}
    tested = next((predictions for found in judged.values() for predictions in found), None)
    samples, left_out = {}, {}
    for method, found in judged.items():
        reason = _unfit(found, tested)
        if reason:
            left_out[method] = reason
        else:
            samples[method] = _sample(found, metric)
    return Standing(metric, *_compared(samples, left_out), left_out, _front(metric, means))


def _predicted(cells: Cells, metric: str) -> list[Predictions]:
    return [
        predictions
        for record, predictions in cells
        if predictions is not None and record.metrics.get(metric) is not None
    ]


def _unfit(found: list[Predictions], tested: Predictions | None) -> str:
    """Why a method cannot be compared with the others at all; empty when it can."""
    if not found or tested is None:
        return "no predictions"
    return (
        "" if all(np.array_equal(p.labels, tested.labels) for p in found) else "other test examples"
    )


def _sample(found: list[Predictions], metric: str) -> Sample:
    def scores(predictions: Predictions) -> Array:
        if metric == "macro_f1":
            return statistics.macro_f1_scores(
                predictions.predicted, predictions.labels, predictions.logits.shape[1]
            )
        return statistics.correct(predictions.predicted, predictions.labels)

    return statistics.summed_up(np.stack([scores(predictions) for predictions in found]))


def _compared(
    samples: Mapping[str, Sample], left_out: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, tuple[float, float]], tuple[Pair, ...], dict[str, str]]:
    """Order, intervals, pairs and groups; methods of one seed have an interval (of that one model) and are left out of the rest."""
    several = {
        method: sample
        for method, sample in samples.items()
        if sample.seeds >= statistics.SEEDS_NEEDED
    }
    left_out |= {method: "one seed: no spread" for method in samples if method not in several}
    spread = statistics.common_spread(list(several.values())) if several else None
    intervals = {
        method: statistics.interval(sample, spread if method in several else None)
        for method, sample in samples.items()
    }
    order = tuple(sorted(several, key=lambda method: -float(several[method].mean)))
    found = statistics.differences([several[method] for method in order])
    figures = zip(found.difference, found.low, found.high, found.p, strict=True)
    pairs = tuple(
        Pair(first, second, *(float(figure) for figure in four))
        for (first, second), four in zip(combinations(order, 2), figures, strict=True)
    )
    apart = [indices for indices, pair in zip(found.pairs, pairs, strict=True) if pair.is_separable]
    return (
        order,
        intervals,
        pairs,
        dict(zip(order, statistics.letters(len(order), apart), strict=True)),
    )


def _front(metric: str, means: Mapping[str, Mapping[str, float]]) -> dict[str, bool | None]:
    """Who is on the Pareto front. A figure that no method has (quality with random weights) is none to be judged by."""
    costs = [
        [
            (-1 if METRICS[name].better == "higher" else 1) * figures[name]
            for name in (metric, *COSTS)
        ]
        for figures in means.values()
    ]
    table = np.asarray(costs, dtype=np.float64).reshape(len(costs), 1 + len(COSTS))
    table = table[:, ~np.isnan(table).all(axis=0)]
    if not table.shape[1]:
        return dict.fromkeys(means)
    return dict(zip(means, statistics.pareto(table), strict=True))
