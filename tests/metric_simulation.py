"""Simulated predictions of methods that are equally good, scored by the tasks' own metrics.

`simulation` has the same for classes. A row's noise is its difficulty for all methods, its
difficulty for one method, and chance, as there. The effect of a seed changes the model's quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from simulation import BATCH

from peft_methods.analysis.samples import Sample, sample_of, scale_of_scores
from peft_methods.profiling.metrics import METRICS
from peft_methods.tasks.lm_predictions import LanguagePredictions
from peft_methods.tasks.number_predictions import NumberPredictions
from peft_methods.tasks.registry import TASKS
from peft_methods.tasks.set_scores import macro_f1_scores, micro_f1_scores
from peft_methods.tasks.tag_scores import Counts, sentence_scores

Array = NDArray[np.float64]
Model = Callable[["Rows", Array, float], Array]  # noise and a seed's effect -> scores of the rows
SHARES = (0.45, 0.2, 0.35)  # of the noise: all methods, one method, single answers
CERTAIN = (0.95, 0.03, 0.02)  # of the losses of language models, which agree more
SEED = 5
MANY_ROWS = 200_000  # for true values
LABELS = 0.3 * 0.7 ** np.arange(12)  # shares of the rows that have each of several labels


@dataclass(frozen=True)
class Rows:
    """Test rows, and items in them (entities, labels) with the `row` of each."""

    count: int
    values: Array
    row: NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """A metric: how rows are drawn, and what a model gives for their noise.

    A seed whose effect is `point` changes the metric by about a hundredth (perplexity: of itself).
    """

    metric: str
    draw: Callable[[np.random.Generator, int], Rows]
    scores: Model
    point: float
    shares: tuple[float, float, float] = SHARES

    def __str__(self) -> str:
        return self.metric


def _numbers(rng: np.random.Generator, rows: int) -> Rows:
    """Similarities from 0 to 5, in steps as several annotators give them."""
    return Rows(rows, np.round(5 * rng.beta(1.2, 1.0, rows), 1), np.arange(rows))


def _regression(metric: str) -> Model:
    def scores(rows: Rows, noise: Array, effect: float) -> Array:
        predicted = 0.5 + 0.8 * rows.values + 0.7 * np.exp(effect) * noise
        made = NumberPredictions(predicted[:, None].astype(np.float32), rows.values)
        return TASKS["regression"].example_scores(made, metric)

    return scores


def _entities(rng: np.random.Generator, rows: int) -> Rows:
    """Sentences with no to many entities (`values` 1), and words that may be taken for one (0)."""
    rate = rng.gamma(0.7, 1.4, rows)
    true, others = (np.repeat(np.arange(rows), rng.poisson(one)) for one in (rate, 0.5 * rate))
    kind = np.repeat([1.0, 0.0], [len(true), len(others)])
    return Rows(rows, kind, np.concatenate([true, others]))


def _entity_f1(rows: Rows, noise: Array, effect: float) -> Array:
    """Entities are found with a chance of 70 %, other words taken for one with 30 %."""
    guessed = np.where(rows.values == 1, noise < ndtri(0.7) + effect, noise > ndtri(0.7) + effect)

    def count(items: NDArray[np.bool_]) -> Array:
        return np.bincount(rows.row[items], minlength=rows.count).astype(np.float64)

    true = rows.values == 1
    words = np.full(rows.count, 20.0)
    return sentence_scores(
        Counts(count(guessed & true), count(guessed), count(true), words, words), "entity_f1"
    )


def _label_sets(rng: np.random.Generator, rows: int) -> Rows:
    has = rng.random((rows, len(LABELS))) < LABELS
    return Rows(rows, has.astype(np.float64).ravel(), np.repeat(np.arange(rows), len(LABELS)))


def _multilabel(score: Callable[[Array, Array], Array]) -> Model:
    """A label that a row has is found with a chance of 70 %; one that it lacks rarely is."""

    def scores(rows: Rows, noise: Array, effect: float) -> Array:
        true = rows.values.reshape(rows.count, -1)
        wrong = ndtri(1 - 0.3 * LABELS)
        level = np.where(true == 1, ndtri(0.7) + effect, -wrong - effect)
        return score((noise.reshape(true.shape) < level).astype(np.float64), true)

    return scores


def _texts(rng: np.random.Generator, rows: int) -> Rows:
    """Completions of 10 to some 300 tokens."""
    return Rows(rows, np.ceil(60 * np.exp(0.6 * rng.standard_normal(rows))), np.arange(rows))


def _loss(metric: str) -> Model:
    """Losses of rows are skewed: a mean of some 1.2 nats, and up to 5."""

    def scores(rows: Rows, noise: Array, effect: float) -> Array:
        totals = rows.values * (1.1 * np.exp(0.4 * noise) + effect)
        made = LanguagePredictions(totals, rows.values.astype(np.int64), np.arange(rows.count))
        return TASKS["causal_lm"].example_scores(made, metric)

    return scores


def _plain(rng: np.random.Generator, rows: int) -> Rows:
    return Rows(rows, np.zeros(rows), np.arange(rows))


def _rouge(rows: Rows, noise: Array, effect: float) -> Array:
    """F-measures about 35 %; a tenth of the texts has nothing right."""
    return np.where(noise > ndtri(0.9), 0.0, ndtr(-0.3 - 0.7 * noise + effect))


def _exact(rows: Rows, noise: Array, effect: float) -> Array:
    return (noise < ndtri(0.15) + effect).astype(np.float64)


KINDS = {
    kind.metric: kind
    for kind in (
        Kind("spearman", _numbers, _regression("spearman"), 0.05),
        Kind("pearson", _numbers, _regression("pearson"), 0.05),
        Kind("mae", _numbers, _regression("mae"), 0.02),
        Kind("r2", _numbers, _regression("r2"), 0.02),
        Kind("entity_f1", _entities, _entity_f1, 0.03),
        Kind("micro_f1", _label_sets, _multilabel(micro_f1_scores), 0.03),
        Kind("macro_f1", _label_sets, _multilabel(macro_f1_scores), 0.03),
        Kind("token_loss", _texts, _loss("token_loss"), 0.01, CERTAIN),
        Kind("perplexity", _texts, _loss("perplexity"), 0.01, CERTAIN),
        Kind("rouge_l", _plain, _rouge, 0.03),
        Kind("exact_match", _plain, _exact, 0.04),
    )
}


@dataclass(frozen=True)
class Setting:
    """Equal methods of one kind, with the `spread` of each over seeds in hundredths, and seeds."""

    kind: str
    spreads: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: int

    def __str__(self) -> str:
        spreads, seeds = (
            "-".join(f"{one:g}" for one in sorted({min(values), max(values)}))
            for values in (self.spreads, self.seeds)
        )
        return (
            f"{self.kind}: {len(self.seeds)} methods, spread {spreads}, seeds {seeds}, "
            f"{self.rows} rows"
        )


def scores_of(setting: Setting, repetitions: int) -> Iterator[list[Array]]:
    """Yield each method's scores (seeds, rows), of every repetition."""
    kind = KINDS[setting.kind]
    rng = np.random.default_rng([SEED, list(KINDS).index(setting.kind)])
    for _ in range(repetitions):
        rows = kind.draw(rng, setting.rows)
        items = len(rows.values)
        shared = rng.standard_normal(items)
        found = []
        for spread, seeds in zip(setting.spreads, setting.seeds, strict=True):
            own = rng.standard_normal(items)
            effects = kind.point * spread * rng.standard_normal(seeds)
            effects += middle_effect(kind.metric, spread)
            noise = (_noise(kind, shared, own, rng.standard_normal(items)) for _ in effects)
            found.append(
                np.stack([kind.scores(rows, *one) for one in zip(noise, effects, strict=True)])
            )
        yield found


def _noise(kind: Kind, *parts: Array) -> Array:
    return np.asarray(sum(np.sqrt(s) * part for s, part in zip(kind.shares, parts, strict=True)))


@cache
def _means(metric: str) -> Callable[[float, float], float]:
    """Return the mean over all seeds on very many rows, by the middle effect and its spread."""
    kind, rng = KINDS[metric], np.random.default_rng(0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    rows = kind.draw(rng, MANY_ROWS)
    noise = rng.standard_normal(len(rows.values))

    def mean(middle: float, spread: float) -> float:
        each = [kind.scores(rows, noise, middle + spread * one).mean() for one in nodes]
        return float(np.average(each, weights=weights))

    return mean


@cache
def true_value(metric: str) -> float:
    """Return the metric on very many rows, which all methods have in the mean over seeds."""
    return _means(metric)(0.0, 0.0)


@cache
def value_on(metric: str, rows: int, repetitions: int = 2000) -> float:
    """Return the metric's mean over test sets of so many rows, for a model without a seed's effect.

    With rare labels macro F1 is lower on few rows: a label that no row has counts as 0.
    """
    kind, rng = KINDS[metric], np.random.default_rng(1)
    found = []
    for _ in range(repetitions):
        drawn = kind.draw(rng, rows)
        found.append(kind.scores(drawn, rng.standard_normal(len(drawn.values)), 0.0).mean())
    return float(np.mean(found))


@cache
def middle_effect(metric: str, spread: float) -> float:
    """Return the middle effect with which a method has the true value in the mean."""
    point, mean = KINDS[metric].point, _means(metric)
    slope = (mean(point, 0.0) - mean(-point, 0.0)) / (2 * point)
    middle = 0.0
    for _ in range(3):
        middle += (true_value(metric) - mean(middle, spread * point)) / slope
    return middle


def samples_of(batch: Sequence[Sequence[Array]], metric: str) -> list[Sample]:
    """Return a sample of every method, given each one's scores in every repetition."""
    runs = (run for one in batch for of_method in one for run in of_method)
    scale = None if METRICS[metric].is_share else scale_of_scores(runs)
    return [sample_of(np.stack(of_method), scale) for of_method in zip(*batch, strict=True)]


def shares(
    setting: Setting, decisions: Sequence[Callable[[list[Sample]], Any]], repetitions: int
) -> list[float]:
    """Return the share of repetitions for which each decision on all methods is true."""
    drawn, found = scores_of(setting, repetitions), []
    while batch := list(islice(drawn, BATCH)):
        samples = samples_of(batch, setting.kind)
        found.append([decide(samples) for decide in decisions])
    return [float(np.mean(np.concatenate(one))) for one in zip(*found, strict=True)]
