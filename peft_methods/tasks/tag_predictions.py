"""Predictions of a tagger: one tag for each word, and the mean loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.token_rows import TokenRows
from peft_methods.tasks.tag_rows import NO_WORD, TAGS, WORDS

if TYPE_CHECKING:
    from torch import Tensor

UNREAD = -1  # what is predicted for a word that was cut off: no tag
PADDING = -100

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TagPredictions:
    """Predicted and true labels of all words, sentence after sentence.

    `predicted` and `true` have shape (words,); `lengths` (sentences,) has the words of each
    sentence. A word that was not read is UNREAD in `predicted`: it counts as an error. `loss` is
    the mean cross-entropy of the words that were read, in nats. `is_finite` is false if any of
    their logits is not.
    """

    predicted: Integers
    true: Integers
    lengths: Integers
    loss: float
    is_finite: bool = True

    @cached_property
    def labels(self) -> Integers:
        """The true labels, (sentences, words of the longest), padded with PADDING."""
        result = np.full((len(self.lengths), int(self.lengths.max(initial=0))), PADDING)
        result[np.arange(result.shape[1]) < self.lengths[:, None]] = self.true
        return result

    @property
    def sentence(self) -> Integers:
        """The number of each word's sentence, (words,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays to store."""
        return {
            "predicted": self.predicted.astype(np.int32),
            "labels": self.true.astype(np.int32),
            "lengths": self.lengths,
            "loss": np.asarray(self.loss, dtype=np.float64),
            "is_finite": np.asarray(self.is_finite),
        }

    @classmethod
    def restore(cls, read: Callable[[str], NDArray[Any]]) -> TagPredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        predicted, true, lengths = (read(name) for name in ("predicted", "labels", "lengths"))
        loss, finite = read("loss"), read("is_finite")
        fits = (
            all(one.ndim == 1 and one.dtype.kind in "iu" for one in (predicted, true, lengths))
            and len(predicted) == len(true) == lengths.sum()
            and loss.shape == finite.shape == ()
        )
        if not fits or (true < 0).any() or (predicted < UNREAD).any() or (lengths < 0).any():
            raise ValueError(
                "it must hold predicted and labels of shape (words,) that are label indices, and "
                "lengths of shape (sentences,) whose sum is the number of words"
            )
        return cls(
            predicted.astype(np.int64),
            true.astype(np.int64),
            lengths.astype(np.int64),
            float(loss),
            bool(finite),
        )


def gathered(outputs: Sequence[Tensor], order: Integers, rows: TokenRows) -> TagPredictions:
    """Join the logits of all batches, each (rows, tokens, labels). Output i is of row `order[i]`.

    Only the logits of words that were read are copied to the host.
    """
    import torch
    from scipy.special import log_softmax

    tags, lengths = _joined(rows.tokens[TAGS]), np.asarray([len(one) for one in rows.tokens[TAGS]])
    places, words = _places(outputs, order, rows, np.cumsum(lengths) - lengths)
    flat = torch.cat([one.flatten(0, 1) for one in outputs])
    chosen = flat[torch.as_tensor(places, device=flat.device)].cpu().numpy()
    predicted = np.full(len(tags), UNREAD, dtype=np.int64)
    predicted[words] = chosen.argmax(axis=1)
    right = log_softmax(chosen.astype(np.float64), axis=1)[np.arange(len(words)), tags[words]]
    return TagPredictions(
        predicted,
        tags,
        lengths.astype(np.int64),
        loss=float(-right.mean()) if len(words) else 0.0,
        is_finite=bool(np.isfinite(chosen).all()),
    )


def _joined(rows: Sequence[Integers]) -> Integers:
    return np.concatenate([np.empty(0, np.int64), *rows])


def _places(
    outputs: Sequence[Tensor], order: Integers, rows: TokenRows, first: Integers
) -> tuple[Integers, Integers]:
    """Return where the logits of each word that was read are, and the number of the word.

    Logits are numbered through all batches, words through all sentences in the order of the rows;
    `first` has the number of each sentence's first word.
    """
    places, words = [], []
    start, done = 0, 0
    for one in outputs:
        count, length = one.shape[:2]
        for row in order[done : done + count]:
            found = rows.tokens[WORDS][row]
            tokens = np.flatnonzero(found != NO_WORD)
            places.append(start + tokens)
            words.append(first[row] + found[tokens])
            start += length
        done += count
    return _joined(places), _joined(words)
