"""Heads that libraries put on a model: their sizes as `fixed + each * classes`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from peft_methods.models.architecture import Architecture
from peft_methods.models.decoder_maps import DECODER_MAPS

HeadKind = Literal["sequence", "token", "question", "language", "none"]
MOST_CLASSES = 1000
# Numbers of classes of usual data sets. Others are tried for exact counts of usual settings only:
# any number beside any setting would fit nearly any count.
USUAL_CLASSES = (*range(1, 31), 42, 47, 50, 64, 77, 100, 101, 102, 120, 150, 151, 196, 200, 397)
# Models with a dense layer in the head; BERT has its pooler instead. ModernBERT's has a norm in
# place of biases.
DENSE_HEADS = (
    *("roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "deberta-v2", "modernbert"),
    *("deberta", "electra", "t5"),
)
BIASED_VOCABULARY = ("phi",)  # a bias for each token, beside the projection to the vocabulary
UNBIASED = (*DECODER_MAPS, "falcon")  # a decoder's head is one matrix
WORDS: tuple[tuple[HeadKind, str], ...] = (
    ("question", r"squad|question[\s_-]?answering|\bqa\b|newsqa|\bextractive"),
    ("token", r"\bner\b|conll|ontonotes|\bpos\b|token[\s_-]?cls|token[\s_-]?class|chunking|wnut"),
    ("language", r"gsm|\bmath|alpaca|language|generation|summar|\be2e|webnlg|dolly|xsum|cnn|dart"),
    (
        "sequence",
        r"sst|mrpc|cola|qqp|\bqnli|mnli|\brte|wnli|sts-?b|imdb|ag.?news|yelp|banking|trec|clinc"
        r"|emotion|tweet|20.?news|rotten|boolq|snli|seq[\s_-]?cls|(text|sequence|sentiment).*class",
    ),
)


@dataclass(frozen=True)
class HeadSize:
    """The parameters of a head; `classes` are the numbers that it may have (0 for none)."""

    fixed: int
    each: int
    classes: tuple[int, ...]


def head_of(task: str | None) -> HeadKind | None:
    """Return the kind of head that a task or data set has; None if its name does not tell."""
    text = (task or "").casefold()
    found = {kind for kind, words in WORDS if re.search(words, text)}
    return found.pop() if len(found) == 1 else None


def pooler_size(architecture: Architecture) -> int:
    """Return the parameters of a dense layer as wide as the model."""
    return architecture.hidden * architecture.hidden + architecture.hidden


def heads(
    architecture: Architecture, kind: HeadKind | None, vocabulary: int, *, any_classes: bool = False
) -> Iterator[HeadSize]:
    """Yield what may be trained and counted beside the method: all kinds where `kind` is None.

    Tables give counts with and without the head, so no head is always among them. The number of
    classes is `architecture.labels`, or any where that is 0.
    """
    yield HeadSize(0, 0, (0,))
    hidden, width = architecture.hidden, architecture.embedding_width
    labels = _classes(architecture, any_classes=any_classes)
    dense, bias = pooler_size(architecture), architecture.model_type not in UNBIASED
    if kind in (None, "sequence"):
        if architecture.model_type in DENSE_HEADS:
            yield HeadSize(dense, hidden + 1, labels)
        else:
            yield HeadSize(
                0, (width if architecture.model_type == "opt" else hidden) + bias, labels
            )
            if architecture.pooler:
                yield HeadSize(dense, hidden + 1, labels)
            if not bias:
                # A table may not mention that the model is a decoder with a head of its own.
                yield HeadSize(0, hidden + 1, labels)
    if kind in (None, "token"):
        yield HeadSize(0, hidden + 1, labels)
        if architecture.model_type == "modernbert":
            yield HeadSize(dense, hidden + 1, labels)
    if kind in (None, "question"):
        yield HeadSize(0, hidden + 1, (2,))
    if kind in (None, "language") and vocabulary:
        for matrices in (1, 2):
            yield HeadSize(matrices * vocabulary * width, 0, (0,))
        if architecture.model_type in BIASED_VOCABULARY:
            yield HeadSize(vocabulary * width + vocabulary, 0, (0,))
        # The head of masked language models: a dense layer, a norm, biases of the vocabulary.
        yield HeadSize(hidden * width + 3 * width + vocabulary, 0, (0,))


def biases_of_heads(architecture: Architecture, vocabulary: int) -> Iterator[HeadSize]:
    """Yield the bias of a head's last matrix, where every bias is trained and no new matrix is."""
    yield HeadSize(0, 1, _classes(architecture, any_classes=False))
    if architecture.model_type in BIASED_VOCABULARY:
        yield HeadSize(vocabulary, 0, (0,))


def output_layer(architecture: Architecture, *, any_classes: bool = False) -> HeadSize:
    """Return the last matrix of a head alone, without its dense layer."""
    return HeadSize(0, architecture.hidden + 1, _classes(architecture, any_classes=any_classes))


def _classes(architecture: Architecture, *, any_classes: bool) -> tuple[int, ...]:
    if architecture.labels:
        return (architecture.labels,)
    return tuple(range(1, MOST_CLASSES + 1)) if any_classes else USUAL_CLASSES
