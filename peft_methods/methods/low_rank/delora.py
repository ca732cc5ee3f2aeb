"""DeLoRA: a low-rank update of normalised directions with a learned strength (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class DeLoRA(TargetedPeftMethod):
    """`delora_lambda` is the strength at the start, relative to the norm of the weights."""

    info = MethodInfo(
        name="delora",
        title="DeLoRA",
        family="low_rank",
        order=33,
        paper="Bini et al. 2025, arXiv:2503.18225",
        citations=("bini2025delora",),
        trained="low-rank updates of unit directions, and their strength",
        about=(
            "learns the normalised directions of a low-rank update, and beside them one number for "
            "each matrix, which bounds how far it moves."
        ),
        aliases=r"(?<![a-z])de-?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "encoder": DefaultRate(1e-3, "PEFT's documentation: 1e-3 to 1e-2 are typical"),
            "decoder": compared(1e-3),
        },
    )
    takes_transposed = False
    not_converted = ""

    rank: Count = 8
    delora_lambda: Positive = 15.0
    module_dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Up-projections start at zero, so the outputs are unchanged at first."""
        from peft import DeloraConfig

        return DeloraConfig(
            **self.common(model, context),
            r=self.rank,
            delora_lambda=self.delora_lambda,
            module_dropout=self.module_dropout,
        )

    def misfit(self, architecture: Architecture) -> str | None:
        """The rank of an update is that of its matrix at most: beyond it, memory is wasted."""
        return self.too_large("rank", architecture, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (inputs + outputs) + 1 for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return self.rank * sum(map(sum, sizes)) + len(sizes)
