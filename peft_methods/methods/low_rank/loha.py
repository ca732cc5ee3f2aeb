"""LoHa: the elementwise product of two low-rank updates (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoHa(TargetedPeftMethod):
    """The update has up to rank squared. `rank_dropout` and `module_dropout` are PEFT's."""

    info = MethodInfo(
        name="loha",
        title="LoHa",
        family="low_rank",
        order=30,
        paper="Hyeon-Woo et al. 2022, arXiv:2108.06098",
        citations=("hyeonwoo2022fedpara",),
        trained="elementwise products of two low-rank updates",
        about=(
            "adds to each weight matrix the elementwise product of two low-rank matrices, whose "
            "rank can be the square of theirs."
        ),
        aliases=r"\bloha\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates=AS_LORA,
    )
    takes_transposed = False
    not_converted = ""

    rank: Count = 8
    alpha: Positive = 8
    rank_dropout: Dropout = 0.0
    module_dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """One of the four matrices starts at zero, so the outputs are unchanged at first."""
        from peft import LoHaConfig

        return LoHaConfig(
            **self.common(model, context),
            r=self.rank,
            alpha=self.alpha,
            rank_dropout=self.rank_dropout,
            module_dropout=self.module_dropout,
        )

    def misfit(self, architecture: Architecture) -> str | None:
        """The rank of an update is that of its matrix at most: beyond it, memory is wasted."""
        return self.too_large("rank", architecture, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """2 * rank * (inputs + outputs) for each linear layer in the targets."""
        return 2 * self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))
