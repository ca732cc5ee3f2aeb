"""Outputs for whole rows: of padded batches, and of examples that are packed into one row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peft_methods.models.families import family_of
from peft_methods.models.projection import forward_replaced, transformers_model
from peft_methods.models.ranks import unwrapped
from peft_methods.tasks.base import Batch
from peft_methods.tasks.collate import PLACES, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


def row_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the outputs of the head, of shape (rows, labels).

    Of packed rows it reads the states at their places: the first token of each row, for decoders
    the last one.
    """
    inputs = model_inputs(batch)
    if PLACES not in batch:
        logits: Tensor = model(**inputs).logits
        return logits
    base = transformers_model(unwrapped(model))
    if family_of(base.config) == "decoder":
        return _decoder_logits(model, base.score, batch)
    with _rows_of_one_state(base, batch[PLACES]):
        logits = model(**inputs).logits
    return logits


def _decoder_logits(model: nn.Module, head: Any, batch: Batch) -> Tensor:
    """Return the outputs of the linear map that the classifiers of decoders end with."""
    own, found = head.forward, []

    def score(states: Tensor) -> Tensor:
        found.append(own(states.flatten(0, 1).index_select(0, batch[PLACES])))
        return states[..., :1]  # nobody reads these outputs

    with forward_replaced(head, score):
        model(**model_inputs(batch), use_cache=False)
    return found[0]


@contextmanager
def _rows_of_one_state(base: Any, places: Tensor) -> Iterator[None]:
    """Context manager: heads and poolers of an encoder see rows (places, 1, width).

    They read the first state of each row.
    """
    body = getattr(base, base.base_model_prefix)
    # A pooler within the body comes after its layers.
    inner = body if getattr(body, "pooler", None) is None else body.encoder

    def choose(_: nn.Module, __: Any, output: Any) -> Any:
        states = output[0].flatten(0, 1).index_select(0, places).unsqueeze(1)
        if isinstance(output, tuple):
            return (states, *output[1:])
        output["last_hidden_state"] = states
        return output

    hook = inner.register_forward_hook(choose)
    try:
        yield
    finally:
        hook.remove()
