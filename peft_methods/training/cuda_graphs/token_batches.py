"""Packed batches of few sizes: the examples of a batch one after the other in a row of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.tasks.collate import BORDERS, EXAMPLES, PLACES, Collator
from peft_methods.training.cuda_graphs.token_buckets import TokenBucket, rounded, token_buckets

WATCHED_BATCHES = 1000  # whose sizes decide on the buckets
MOST_EPOCHS = 10  # that these are taken from


class TokenCollator:
    """Collate a batch into one row of tokens, filled up to the first bucket that holds it.

    The outputs at `places` have the `labels`; both are filled up with places without a label.
    `borders` divide the row into sequences that do not attend to one another: the examples, and
    sequences of at most `longest` tokens that fill the bucket. Borders that are not needed are at
    the end of the row, so that all batches of a bucket have as many.
    """

    packs = True

    def __init__(
        self,
        collate: Collator,
        rows: TokenRows,
        batches: Iterable[Sequence[int]],
        *,
        size: int,
        pooled: int,
        first: int = 0,
    ) -> None:
        """Choose the buckets of batches of `size` rows, of which `batches` are examples.

        `pooled` is the place in an example whose output stands for it: 0 or -1. Positions are
        counted from `first`. With padding to a fixed length there is one bucket, of as many tokens
        as that padding gives.
        """
        lengths = rows.lengths
        self.longest = max(lengths)
        self._collate, self._size, self._pooled, self._first = collate, size, pooled, first
        self._label_shape = rows.label_shape
        self._columns = [
            name for name in collate.padding if name in rows[0] and name != "attention_mask"
        ]
        total = sum(sorted(lengths)[-size:])
        if collate.length is None:
            watched = [self._sizes([rows[row] for row in batch]) for batch in batches]
            total = max(total, *(tokens for tokens, _ in watched))  # a row may be there twice
            self.buckets = token_buckets(watched, TokenBucket(total, self._most_places(total)))
        else:
            total = size * collate.length
            self.buckets = (TokenBucket(rounded(total), rounded(self._most_places(total))),)

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return the tensors of `empty` with these rows, their count, and that of their labels."""
        with torch.device("cpu"):  # also where tensors are made on the model's device
            return self._collated(rows)

    def _collated(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        found = [self.labelled(row) for row in rows]
        tokens = sum(len(row["input_ids"]) for row in rows)
        places = sum(len(own) for own, _ in found)
        bucket = next(one for one in self.buckets if one.holds(tokens, places))
        ends = list(itertools.accumulate(len(row["input_ids"]) for row in rows))
        starts = [0, *ends[:-1]]
        batch = self.empty(bucket, ends)
        for name in self._columns:
            joined = np.concatenate([row[name] for row in rows])
            batch[name][0, :tokens] = torch.from_numpy(joined)
        positions = np.concatenate([np.arange(len(row["input_ids"])) for row in rows])
        batch["position_ids"][0, :tokens] += torch.from_numpy(positions)
        at = np.concatenate(
            [start + np.asarray(own) for start, (own, _) in zip(starts, found, strict=True)]
        )
        labels = np.concatenate([np.asarray(own) for _, own in found])
        batch[PLACES][:places] = torch.from_numpy(at)
        batch["labels"][:places] = torch.from_numpy(labels).to(batch["labels"].dtype)
        return {**batch, EXAMPLES: places, "rows": len(rows)}

    def labelled(self, row: TokenRow) -> tuple[Any, Any]:
        """Return the places of a row whose outputs have a label, and these labels."""
        return self._collate.labelled(row, self._pooled)

    def empty(self, bucket: TokenBucket, ends: Sequence[int] = ()) -> dict[str, torch.Tensor]:
        """Return a batch of this size without labels, whose first sequences have these ends."""
        size, padding = bucket.tokens, self._collate.padding
        batch = {name: torch.full((1, size), padding[name]) for name in self._columns}
        batch["position_ids"] = torch.full((1, size), self._first)
        batch["attention_mask"] = torch.ones((1, size), dtype=torch.long)
        filled = range((ends or [0])[-1], size, self.longest)
        borders = np.full(1 + self._size + -(-size // self.longest), size, dtype=np.int32)
        known = [0, *ends, *filled[1:]]
        borders[: len(known)] = known
        places = torch.zeros(bucket.places, dtype=torch.long)
        labels = self.no_labels(bucket.places)
        return batch | {"labels": labels, PLACES: places, BORDERS: torch.from_numpy(borders)}

    def no_labels(self, places: int) -> torch.Tensor:
        """Return the labels of places that add nothing to the loss."""
        labels = self._collate.no_labels(places, 1).view(places)
        for size in self._label_shape:
            labels = labels.unsqueeze(-1).repeat(*([1] * labels.ndim), size)
        return labels

    def _sizes(self, rows: Sequence[TokenRow]) -> tuple[int, int]:
        """Return the number of tokens of these rows, and that of their labels."""
        labels = sum(len(self.labelled(row)[0]) for row in rows)
        return sum(len(row["input_ids"]) for row in rows), labels

    def _most_places(self, tokens: int) -> int:
        """Return the most labels that a batch of this many tokens can have."""
        return tokens if self._collate.labels_tokens else self._size


def watched_batches(sampler: Any, size: int) -> Iterable[list[int]]:
    """Return batches as the sampler draws them: those of the first epochs, or of a part of one.

    The caller restores the state of the sampler's generator.
    """
    drawn = 0
    for _ in range(MOST_EPOCHS):
        order = iter(sampler)
        while rows := list(itertools.islice(order, size)):
            yield rows
            drawn += 1
            if drawn == WATCHED_BATCHES:
                return
