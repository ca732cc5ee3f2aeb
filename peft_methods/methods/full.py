"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.layouts import ModelShape
from peft_methods.methods.base import Method, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """The usual way, and the ceiling that the others are measured against."""

    name = "full"
    title = "Full fine-tuning"
    paper = "Devlin et al. 2019, arXiv:1810.04805"
    needs = "any encoder"
    passes = 3.0

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Nothing to add: all parameters are trainable as loaded."""
        return model.requires_grad_(True)

    def expected_trainable(self, shape: ModelShape) -> int | None:
        """Everything but the head."""
        return shape.encoder_parameters if shape.layout else None
