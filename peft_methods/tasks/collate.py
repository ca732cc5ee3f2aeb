"""Padded batches from rows of token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peft_methods.data.token_rows import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LABEL = -100  # rows with this label are no part of a loss
EXAMPLES = "examples"  # the number of labels in a batch, known to the host, where not one a row
# Of packed tokens: the places whose outputs have a label, and where examples begin.
PLACES, BORDERS = "places", "borders"
# Entries of a batch that no model reads.
NOT_INPUTS = frozenset({"labels", "rows", EXAMPLES, PLACES, BORDERS})


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a batch that the model reads."""
    return {name: value for name, value in batch.items() if name not in NOT_INPUTS}


class Collator:
    """Collate rows of token ids into a batch padded to its longest row, or to `length` tokens.

    A task with other labels overrides `labels`, `no_labels` and `labelled`. `labels_tokens`:
    tokens have labels, rather than rows. `packs`: rows follow one another, without a mask.
    """

    labels_tokens = False
    packs = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> None:
        self.length = length
        self.padding: Mapping[str, int] = {
            "input_ids": tokenizer.pad_token_id or 0,
            "attention_mask": 0,
            "token_type_ids": tokenizer.pad_token_type_id,
        }

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return tensors of shape (rows, longest or length), and the labels."""
        longest = self.length or max(len(row["input_ids"]) for row in rows)
        batch: dict[str, Any] = {"labels": self.labels(rows, longest)}
        for column in (name for name in self.padding if name in rows[0]):
            batch[column] = torch.from_numpy(
                self._padded([row[column] for row in rows], longest, self.padding[column])
            )
        return batch

    def labels(self, rows: Sequence[TokenRow], length: int) -> torch.Tensor:
        """Return the labels of rows that are padded to `length` tokens, here one per row."""
        return torch.tensor([row["labels"] for row in rows])

    def no_labels(self, rows: int, length: int) -> torch.Tensor:
        """Return the labels of a batch that adds nothing to the loss."""
        return torch.full((rows,), NO_LABEL)

    def labelled(self, row: TokenRow, pooled: int) -> tuple[Any, Any]:
        """Return the places of a row whose outputs have a label, and these labels.

        A label of the whole row is at the place `pooled`, whose output stands for the row.
        """
        return [pooled % len(row["input_ids"])], [row["labels"]]

    @staticmethod
    def _padded(rows: Sequence[Any], longest: int, padding: int) -> Any:
        result = np.full((len(rows), longest), padding, dtype=np.int64)
        for padded, row in zip(result, rows, strict=True):
            padded[: len(row)] = row
        return result
