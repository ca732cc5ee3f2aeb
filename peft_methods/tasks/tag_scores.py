"""Entities of tagged sentences, and scores of single sentences whose mean is a metric.

The labels are 0 for O, and 2k - 1 and 2k for B- and I- of the k-th type. Entities are read as
conlleval and seqeval's default mode read them: a tag that is not O begins an entity if it is B-,
or if no entity of its type goes on there. An entity is found if its type and both ends are right.

Precision, recall and F1 are ratios of sums over sentences. They are written as the mean of one
score per sentence by the infinitesimal jackknife (Efron 1982): the metric plus the influence of
each sentence on it. Influences sum to 0, and their variance over sentences is that of the metric,
to first order. A ratio whose denominator is 0 is 0, as in seqeval with `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.tag_predictions import UNREAD, TagPredictions

Integers = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Entities:
    """The entities of tagged words: first word, last word and type (1, 2, …), each (entities,)."""

    first: Integers
    last: Integers
    kind: Integers


def entities_of(tags: Integers, sentence: Integers) -> Entities:
    """Return the entities of the words (words,). `sentence` has the number of each word's."""
    kind = (tags + 1) // 2
    inside = kind > 0
    same = np.zeros(len(tags), dtype=bool)  # whether the word before is in the same sentence
    same[1:] = sentence[1:] == sentence[:-1]
    goes_on = np.zeros(len(tags), dtype=bool)  # whether the word continues the entity before it
    goes_on[1:] = same[1:] & (kind[1:] == kind[:-1]) & (tags[1:] % 2 == 0) & inside[1:]
    first = np.flatnonzero(inside & ~goes_on)
    ends = np.ones(len(tags), dtype=bool)
    ends[:-1] = ~goes_on[1:]
    return Entities(first, np.flatnonzero(inside & ends), kind[first])


@dataclass(frozen=True)
class Counts:
    """Counts by sentence, each (sentences,): entities found, predicted and true; words."""

    found: Array
    predicted: Array
    true: Array
    right_words: Array
    words: Array

    @classmethod
    def of(cls, predictions: TagPredictions) -> Counts:
        """Count the entities and the right words of each sentence."""
        sentence, rows = predictions.sentence, len(predictions.lengths)
        guessed = np.where(predictions.predicted == UNREAD, 0, predictions.predicted)
        true = entities_of(predictions.true, sentence)
        predicted = entities_of(guessed, sentence)
        found = _both(true, predicted)

        def count(words: Integers) -> Array:
            return np.bincount(sentence[words], minlength=rows).astype(np.float64)

        right = np.flatnonzero(predictions.predicted == predictions.true)
        return cls(
            count(true.first[found]),
            count(predicted.first),
            count(true.first),
            count(right),
            predictions.lengths.astype(np.float64),
        )


def _both(true: Entities, predicted: Entities) -> NDArray[np.bool_]:
    """Return which true entities were predicted, with the same type and ends."""
    _, here, there = np.intersect1d(true.first, predicted.first, return_indices=True)
    result = np.zeros(len(true.first), dtype=bool)
    result[here] = (true.last[here] == predicted.last[there]) & (
        true.kind[here] == predicted.kind[there]
    )
    return result


# Each metric as a ratio of two sums over sentences.
RATIOS: Mapping[str, Callable[[Counts], tuple[Array, Array]]] = {
    "entity_f1": lambda of: (2 * of.found, of.predicted + of.true),
    "entity_precision": lambda of: (of.found, of.predicted),
    "entity_recall": lambda of: (of.found, of.true),
    "token_accuracy": lambda of: (of.right_words, of.words),
}


def sentence_scores(counts: Counts, metric: str) -> Array:
    """Return scores (sentences,) whose mean is the metric.

    The influence of a sentence on the ratio A / B is (a - A / B b) / B.
    """
    above, below = RATIOS[metric](counts)
    size = max(1.0, float(below.sum()))
    ratio = float(above.sum()) / size
    scores: Array = ratio + len(below) * (above - ratio * below) / size
    return scores


def all_scores(counts: Counts) -> dict[str, float]:
    """Return every metric as its ratio of sums, for thousands of runs."""
    sums = {name: ratio(counts) for name, ratio in RATIOS.items()}
    return {
        name: float(above.sum()) / max(1.0, float(below.sum()))
        for name, (above, below) in sums.items()
    }
