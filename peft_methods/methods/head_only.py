"""Head only: the encoder is frozen, the classifier is trained. The floor that a method must beat to be worth its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.layouts import ModelShape
from peft_methods.methods.base import Method, Task, freeze_all_but

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class HeadOnly(Method):
    """A linear probe where the head is one linear map."""

    name = "head_only"
    title = "Head only"
    paper = "Alain & Bengio 2016, arXiv:1610.01644"
    needs = "any encoder"
    passes = 1.0

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Freeze the encoder."""
        freeze_all_but(model, task.head)
        return model

    def expected_trainable(self, shape: ModelShape) -> int:
        """Nothing beyond the head."""
        return 0
