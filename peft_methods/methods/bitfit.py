"""BitFit: only bias vectors (and the head) are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.layouts import ModelShape
from peft_methods.methods.base import Method, Task, freeze_all_but

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """All biases of the encoder, those of its norms included."""

    name = "bitfit"
    title = "BitFit"
    paper = "Ben Zaken et al. 2022, arXiv:2106.10199"
    needs = "any encoder"

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Freeze all, then free the biases (a name *ending* in bias: MPNet's position bias is a weight)."""
        freeze_all_but(model, task.head)
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.requires_grad = True
        return model

    def expected_trainable(self, shape: ModelShape) -> int | None:
        """Every bias outside the head."""
        return shape.encoder_biases if shape.layout else None
