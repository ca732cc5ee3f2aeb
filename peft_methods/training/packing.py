"""Whether a model keeps the examples of a packed row apart: it is tried, on a few tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peft_methods.utils.errors import ModelError, first_line

LENGTH = 5  # tokens of each example
# Differences relative to the largest output. A masked token changes nothing, or the last bits where
# experts share a product; outputs at another place differ by the rounding of 16-bit weights.
ALLOWED_CHANGE, ALLOWED_DIFFERENCE = 1e-5, 2e-2


def check_packing(model: nn.Module, method: str = "") -> None:
    """Raise `ModelError` if packed examples see each other, or are read at wrong positions.

    `method` is the title of the method that has changed the model, if one has.
    """
    if (reason := packing_problem(model)) is not None:
        changed = f"with {method}, " if method else ""
        raise ModelError(
            f"budget.padding = 'packed' needs a model that keeps the examples of a row apart: "
            f"{changed}{reason}. Set budget.padding = 'dynamic'.",
            setting="budget.padding",
        )


def packing_problem(model: Any) -> str | None:
    """Return what is wrong with the outputs for packed rows, or None.

    Each of two rows has two examples. When another example is first, the second should have the
    same outputs, and they should be those that it has as the first of a row.
    """
    name = _base_of(model)
    first, other, last = _examples(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found, changed = _outputs(model, first, last), _outputs(model, other, last)
    except Exception as error:  # a model raises whatever it likes for arguments it does not know
        return f"{name} cannot be given the positions of tokens ({first_line(error)})"
    finally:
        model.train(was_training)
    scale = found.abs().max()
    second, alone = found[0, LENGTH:], found[1, :LENGTH]
    if (second - changed[0, LENGTH:]).abs().max() > ALLOWED_CHANGE * scale:
        return (
            f"in {name} an example sees the examples before it, since no attention mask is made "
            f"from the positions"
        )
    if (second - alone).abs().max() > ALLOWED_DIFFERENCE * scale:
        return f"{name} ignores that positions begin again with each example"
    return None


def _base_of(model: Any) -> str:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(base).__name__


def _examples(model: Any) -> torch.Tensor:
    """Return three examples without a token in common, as far as there are enough tokens."""
    words = model.get_input_embeddings().weight.shape[0]
    device = next(model.parameters()).device
    return (torch.arange(1, 3 * LENGTH + 1, device=device) % words).view(3, LENGTH)


def _outputs(model: Any, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the logits for two rows: the examples in this order, and in the other."""
    rows = torch.stack([torch.cat([one, other]), torch.cat([other, one])])
    positions = torch.arange(LENGTH, device=rows.device).repeat(2, 2)
    logits: torch.Tensor = model(input_ids=rows, position_ids=positions, use_cache=False).logits
    return logits.float()
