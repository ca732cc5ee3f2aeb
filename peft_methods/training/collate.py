"""The padding of a recipe's batches, and batches of few shapes for captured steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from peft_methods.data.token_rows import TokenRow
from peft_methods.recipes.schema import Recipe
from peft_methods.tasks.collate import NOT_INPUTS, Collator, model_inputs
from peft_methods.tasks.registry import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_collator(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return the task's collator of evaluations: they pad as training does, or instead of packing.

    An evaluation needs the outputs of each row.
    """
    length = recipe.data.max_length if recipe.budget.padding == "fixed" else None
    return TASKS[recipe.task].collator(tokenizer, length)


def training_collator(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return the task's collator of training batches with the budget's padding."""
    if recipe.budget.padding == "packed":
        return TASKS[recipe.task].packed_collator(tokenizer, recipe.data.max_length)
    return make_collator(recipe, tokenizer)


class TrainingCollator(Protocol):
    """What makes batches of rows. `packs`: rows follow one another, without a mask."""

    packs: bool

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return the batch of these rows."""


class BucketCollator:
    """Collate into batches of few shapes: always `rows` rows, padded to the shortest bucket.

    A bucket is a row length in tokens; the shortest that holds the batch is used. A filler row has
    one visible token and no label, so it adds nothing to the loss. `label_shape` is that of one
    row's label (`TokenRows.label_shape`).
    """

    packs = False

    def __init__(
        self,
        collate: Collator,
        rows: int,
        buckets: Sequence[int],
        label_shape: tuple[int, ...] = (),
    ) -> None:
        self.padding, self._label_shape = collate.padding, label_shape
        self._collate, self._rows, self.buckets = collate, rows, tuple(sorted(buckets))

    def no_labels(self, rows: int, length: int) -> torch.Tensor:
        """Return the labels of a batch that adds nothing to the loss, in their shape."""
        labels = self._collate.no_labels(rows, length)
        for size in self._label_shape:
            labels = labels.unsqueeze(-1).repeat(*([1] * labels.ndim), size)
        return labels

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return tensors of shape (rows, bucket), `labels`, and the row count.

        The row count, `rows`, leaves out filler rows.
        """
        batch = self._collate(rows)
        length = batch["input_ids"].shape[1]
        bucket = next(bucket for bucket in self.buckets if bucket >= length)
        filled = {
            name: self._filled(tensor, self.padding[name], bucket)
            for name, tensor in model_inputs(batch).items()
        }
        others = {name: value for name, value in batch.items() if name in NOT_INPUTS}
        filled["attention_mask"][len(rows) :, 0] = 1
        labels, known = self.no_labels(self._rows, bucket), batch["labels"]
        labels[tuple(slice(size) for size in known.shape)] = known
        return others | filled | {"labels": labels, "rows": len(rows)}

    def empty(self, bucket: int, columns: Collection[str]) -> dict[str, torch.Tensor]:
        """Return a batch of fillers alone, with those of these columns that it pads."""
        batch = {
            name: torch.full((self._rows, bucket), value)
            for name, value in self.padding.items()
            if name in columns
        }
        batch["attention_mask"][:, 0] = 1
        return batch | {"labels": self.no_labels(self._rows, bucket)}

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


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the batch to the model's device. The host does not wait for the copy to a GPU.

    Numbers of the host stay there.
    """
    if device.type == "cpu":
        return dict(batch)
    return {
        name: value.pin_memory().to(device, non_blocking=True)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batch.items()
    }
