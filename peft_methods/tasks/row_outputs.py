"""Outputs for whole rows: of padded batches, and of examples that are packed into one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_methods.models.projection import forward_replaced, transformers_model
from peft_methods.models.ranks import unwrapped
from peft_methods.tasks.base import Batch
from peft_methods.tasks.collate import PLACES, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


def row_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the outputs of the head, of shape (rows, labels).

    The head of a decoder is a linear map of the state of a row's last token.
    """
    if PLACES not in batch:
        logits: Tensor = model(**model_inputs(batch)).logits
        return logits
    head: Any = transformers_model(unwrapped(model)).score
    own, found = head.forward, []

    def score(states: Tensor) -> Tensor:
        found.append(own(states.flatten(0, 1)[batch[PLACES]]))
        return states[..., :1]  # nobody reads these outputs

    with forward_replaced(head, score):
        model(**model_inputs(batch), use_cache=False)
    return found[0]
