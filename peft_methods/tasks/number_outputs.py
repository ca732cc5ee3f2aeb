"""Batches with numbers as labels, and outputs of shape (rows, labels) for each batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from peft_methods.data.token_rows import TokenRow
from peft_methods.tasks.base import Batch, LossSum
from peft_methods.tasks.collate import Collator
from peft_methods.tasks.row_outputs import row_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

Elementwise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of outputs and labels


class NumberCollator(Collator):
    """Collate rows whose labels are numbers: one a row, or several. A filler's label is nan."""

    def labels(self, rows: Sequence[TokenRow], length: int) -> Tensor:
        """Return labels of shape (rows,) or (rows, labels of a row) in 32 bits, as outputs are."""
        return torch.from_numpy(np.stack([row["labels"] for row in rows]).astype(np.float32))

    def no_labels(self, rows: int, length: int) -> Tensor:
        """Return nan for every row."""
        return torch.full((rows,), torch.nan)


def mean_loss(model: nn.Module, batch: Batch, elementwise: Elementwise) -> LossSum:
    """Sum over the labelled rows the mean, over the labels of a row, of a loss.

    Its mean over rows is what transformers computes with the reduction `mean`.
    """
    logits, labels = row_logits(model, batch).float(), batch["labels"]
    wanted = labels.reshape(len(labels), -1)
    known = ~wanted.isnan()
    losses = elementwise(logits, torch.where(known, wanted, 0.0).expand_as(logits))
    return LossSum(total=torch.where(known, losses, 0.0).mean(dim=1).sum(), count=known[:, 0].sum())


def in_order(outputs: Sequence[Tensor], order: NDArray[np.intp]) -> NDArray[Any]:
    """Join outputs of batches in the order of the rows. They are copied to the host once."""
    joined = torch.cat(list(outputs))
    result = torch.empty_like(joined)
    result[torch.as_tensor(order.copy(), device=joined.device)] = joined
    return result.cpu().numpy()
