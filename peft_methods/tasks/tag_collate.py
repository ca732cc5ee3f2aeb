"""Batches with one label for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from peft_methods.data.token_rows import TokenRow
from peft_methods.tasks.collate import EXAMPLES, NO_LABEL, Collator
from peft_methods.tasks.tag_rows import token_labels


class TagCollator(Collator):
    """Collate rows with a label on the first token of each word, and NO_LABEL on all others."""

    labels_tokens = True

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return tensors of shape (rows, longest or length), and the number of labels."""
        batch: dict[str, Any] = super().__call__(rows)
        return batch | {EXAMPLES: int((batch["labels"] != NO_LABEL).sum())}

    def labels(self, rows: Sequence[TokenRow], length: int) -> torch.Tensor:
        """Return labels of shape (rows, length)."""
        found = [token_labels(row, NO_LABEL) for row in rows]
        return torch.from_numpy(self._padded(found, length, NO_LABEL))

    def no_labels(self, rows: int, length: int) -> torch.Tensor:
        """Return labels of shape (rows, length), none of which is part of the loss."""
        return torch.full((rows, length), NO_LABEL)

    def labelled(self, row: TokenRow, pooled: int) -> tuple[Any, Any]:
        """Return the places of first tokens of words, and their tags."""
        labels = token_labels(row, NO_LABEL)
        places = np.flatnonzero(labels != NO_LABEL)
        return places, labels[places]
