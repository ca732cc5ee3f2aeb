"""LoRA-FA: LoRA with frozen random down-projections (PEFT's LoRA)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoRAFA(LoRA):
    """As first published: the gradient of the up-projections is used as it is."""

    info = MethodInfo(
        name="lora_fa",
        title="LoRA-FA",
        family="low_rank",
        order=15,
        paper="Zhang et al. 2023, arXiv:2308.03303",
        citations=("zhang2023lorafa",),
        trained="the up-projections of low-rank updates; the down-projections stay random",
        about=(
            "is LoRA with frozen random down-projections: only the small outputs of those have to "
            "be kept for the backward pass."
        ),
        aliases=r"lora[\s_-]?fa\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # a divided model saves only what is trained
        learning_rates=AS_LORA,
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Apply LoRA and freeze its down-projections."""
        model = super().apply(model, context)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad = False
        return model

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * outputs for each linear layer in the targets."""
        return self.rank * sum(size for _, size in architecture.linear_sizes(self.targets))

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """None: LoRA's are not its own."""
        return ()
