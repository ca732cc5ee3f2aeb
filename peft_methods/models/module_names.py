"""Names of parameters and modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def in_modules(parameter: str, modules: tuple[str, ...]) -> bool:
    """Whether a parameter is in one of these modules, also if PEFT added a prefix to its name."""
    return any(f".{module}." in f".{parameter}" for module in modules)


def top_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the classifier's modules outside the encoder that have parameters."""
    prefix = str(model.base_model_prefix)
    return tuple(
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    )


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a bias vector.

    DeBERTa's are called `q_bias` and `v_bias`. Tables of position biases are no vectors.
    """
    return name.endswith((".bias", "_bias")) and parameter.dim() == 1


def has_transposed_weights(model: nn.Module) -> bool:
    """Whether the linear layers store (inputs, outputs), as GPT-2's do. PEFT has to be told."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())
