"""GraLoRA: a low-rank update for each block of a weight matrix (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, NotNegativeCount, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class GraLoRA(TargetedPeftMethod):
    """Each side is divided by `gralora_k`. `hybrid_rank` is that of an undivided part beside it."""

    info = MethodInfo(
        name="gralora",
        title="GraLoRA",
        family="low_rank",
        order=32,
        paper="Jung et al. 2025, arXiv:2505.20355",
        citations=("jung2025gralora",),
        trained="a low-rank update for each block of the weight matrices",
        about=(
            "divides each weight matrix into blocks and gives each block a low-rank update of its "
            "own, which has the parameters of LoRA but a higher rank in all."
        ),
        aliases=r"gra[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={**AS_LORA, "decoder": compared(2e-4)},
    )
    added_in = (0, 19)
    not_converted = ""

    rank: Count = 8
    alpha: Positive = 16
    gralora_k: Count = 2
    hybrid_rank: NotNegativeCount = 0
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Up-projections start at zero, so the outputs are unchanged at first."""
        from peft import GraloraConfig

        return GraloraConfig(
            **self.common(model, context),
            r=self.rank,
            alpha=self.alpha,
            gralora_k=self.gralora_k,
            hybrid_r=self.hybrid_rank,
            gralora_dropout=self.dropout,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """(rank + hybrid_rank) * (inputs + outputs) for each linear layer in the targets."""
        sides = sum(map(sum, architecture.linear_sizes(self.targets)))
        return (self.rank + self.hybrid_rank) * sides

    def misfit(self, architecture: Architecture) -> str | None:
        """Rank and sides are divided into blocks."""
        if self.rank % self.gralora_k:
            return (
                f"{self.title}: methods.{self.name}.gralora_k = {self.gralora_k} does not divide "
                f"rank = {self.rank}: set rank to a multiple of it"
            )
        return (
            self.does_not_divide("gralora_k", architecture)
            or self.too_large("rank", architecture, every=True)
            or self.too_large("hybrid_rank", architecture, every=True)
        )
