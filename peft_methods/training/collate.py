"""Padded batches from rows of token ids, and predictions over a data split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peft_methods.data.token_rows import TokenRow
from peft_methods.recipes.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_LABEL = -100  # cross-entropy ignores rows with this label


class Collator:
    """Collate rows of token ids into a batch padded to its longest row, or to `length` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> None:
        self.length = length
        self.padding: Mapping[str, int] = {
            "input_ids": tokenizer.pad_token_id or 0,
            "attention_mask": 0,
            "token_type_ids": tokenizer.pad_token_type_id,
        }

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
        """Return tensors of shape (rows, longest or length), and `labels` of shape (rows,)."""
        longest = self.length or max(len(row["input_ids"]) for row in rows)
        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        for column in (name for name in self.padding if name in rows[0]):
            batch[column] = torch.from_numpy(
                self._padded([row[column] for row in rows], longest, self.padding[column])
            )
        return batch

    @staticmethod
    def _padded(rows: Sequence[Any], longest: int, padding: int) -> Any:
        result = np.full((len(rows), longest), padding, dtype=np.int64)
        for padded, row in zip(result, rows, strict=True):
            padded[: len(row)] = row
        return result


def make_collator(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return a collator with the padding of the recipe's budget: fixed or to the longest row."""
    return Collator(tokenizer, recipe.data.max_length if recipe.budget.padding == "fixed" else None)


class BucketCollator:
    """Collate into batches of few shapes: always `rows` rows, padded to the shortest bucket.

    A bucket is a row length in tokens; the shortest that holds the batch is used. A filler row has
    one visible token and no label, so it adds nothing to the loss.
    """

    def __init__(self, collate: Collator, rows: int, buckets: Sequence[int]) -> None:
        self.padding, self._collate, self._rows, self.buckets = (
            collate.padding,
            collate,
            rows,
            tuple(sorted(buckets)),
        )

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return tensors of shape (rows, bucket), `labels` of shape (rows,), and the row count.

        The row count, `rows`, leaves out filler rows.
        """
        batch = self._collate(rows)
        length = batch["input_ids"].shape[1]
        bucket = next(bucket for bucket in self.buckets if bucket >= length)
        filled = {
            name: self._filled(tensor, self.padding[name], bucket)
            for name, tensor in batch.items()
            if name != "labels"
        }
        filled["attention_mask"][len(rows) :, 0] = 1
        labels = torch.full((self._rows,), NO_LABEL)
        labels[: len(rows)] = batch["labels"]
        return filled | {"labels": labels, "rows": len(rows)}

    def _filled(self, tensor: torch.Tensor, padding: int, bucket: int) -> torch.Tensor:
        result = torch.full((self._rows, bucket), padding)
        result[: tensor.shape[0], : tensor.shape[1]] = tensor
        return result


def length_buckets(lengths: Sequence[int], fixed: int | None = None) -> tuple[int, ...]:
    """Return the row lengths (tokens) to pad batches to: at most 16 evenly spaced ones.

    With fixed padding it is the one length given.
    """
    if fixed is not None:
        return (fixed,)
    longest, shortest = max(lengths), min(lengths)
    step = max(8, -(-longest // 128) * 8)
    return tuple(
        min(length, longest) for length in range(-(-shortest // step) * step, longest + step, step)
    )


def on_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move the batch to the model's device. The host does not wait for the copy to a GPU."""
    if device.type == "cpu":
        return dict(batch)
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()
    }
