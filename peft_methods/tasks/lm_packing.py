"""Packed batches of a language model: examples one after the other, in as few tokens as possible.

A batch has the same examples as a padded one, so a step has the same loss and gradient. Positions
begin again with each example; from this, transformers' models make a mask that keeps examples
apart. The model must honour both: `training/packing.py` tries it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_methods.data.token_rows import TokenRow
from peft_methods.tasks.collate import NO_LABEL
from peft_methods.tasks.lm_loss import LanguageCollator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIES = 16  # numbers of rows to try for a batch


class PackedCollator(LanguageCollator):
    """Concatenate the examples of a batch into rows of at most `length` tokens.

    The batch has no attention mask: with one, models would ignore where positions begin again.
    Shorter rows are padded at the end. Each padding token is an example of its own, without label.
    """

    packs = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        super().__init__(tokenizer)
        self.limit = length
        self.padding = {"input_ids": tokenizer.pad_token_id or 0, "position_ids": 0}

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return `input_ids`, `position_ids` and `labels` of shape (packed rows, longest)."""
        lengths = [len(row["input_ids"]) for row in rows]
        return super().__call__(
            [_joined([rows[one] for one in group]) for group in packed(lengths, self.limit)]
        )


def _joined(examples: Sequence[TokenRow]) -> TokenRow:
    """Return one row of several. Nothing predicts the first token of an example."""
    labels = [np.array(one["labels"]) for one in examples]
    for own in labels:
        own[:1] = NO_LABEL
    return {
        "input_ids": np.concatenate([one["input_ids"] for one in examples]),
        "position_ids": np.concatenate([np.arange(len(one)) for one in labels]),
        "labels": np.concatenate(labels),
    }


def packed(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Divide examples into rows of at most `limit` tokens, or one longer example, by their places.

    Of several divisions it is the one with the fewest tokens, padding included; of equal ones that
    with the most rows, since attention within shorter rows is cheaper. So it never has more tokens
    than a padded batch.
    """
    limit = max(limit, *lengths)
    fewest = max(1, -(-sum(lengths) // limit))
    numbers = np.unique(np.linspace(fewest, len(lengths), TRIES).astype(int))
    best, fewest_tokens = [], None
    for number in numbers[::-1]:
        rows = _divided(lengths, int(number))
        longest = max(sum(lengths[one] for one in row) for row in rows)
        if longest <= limit and (fewest_tokens is None or len(rows) * longest < fewest_tokens):
            best, fewest_tokens = rows, len(rows) * longest
    return best


def _divided(lengths: Sequence[int], number: int) -> list[list[int]]:
    """Divide examples into rows of similar length: the longest first, each to the shortest row."""
    rows: list[list[int]] = [[] for _ in range(number)]
    heap = [(0, place) for place in range(number)]
    for one in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        length, place = heap[0]
        rows[place].append(one)
        heapq.heapreplace(heap, (length + lengths[one], place))
    return [row for row in rows if row]
