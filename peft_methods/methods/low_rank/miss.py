"""MiSS: one small matrix that is repeated over all rows of an update (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class MiSS(TargetedPeftMethod):
    """PEFT's standard form; the inputs are summed in groups, as many as the rank."""

    info = MethodInfo(
        name="miss",
        title="MiSS",
        family="low_rank",
        order=35,
        paper="Kang & Yin 2024, arXiv:2409.15371",
        citations=("kang2024miss",),
        trained="one matrix per layer, repeated over groups of the inputs",
        about=(
            "learns one small matrix for each layer and repeats it over the inputs, so a single "
            "trained matrix makes up a low-rank update."
        ),
        aliases=r"^miss\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    takes_transposed = False
    not_converted = ""

    rank: Count = 64
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The matrix starts at zero, so the outputs are unchanged at first."""
        from peft import MissConfig

        return MissConfig(**self.common(model, context), r=self.rank, miss_dropout=self.dropout)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * outputs for each linear layer in the targets."""
        return self.rank * sum(size for _, size in architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many groups of inputs as the rank."""
        return self.too_large("rank", architecture)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A rank that a tiny model has."""
        return {"rank": 8}
