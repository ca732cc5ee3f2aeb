"""HiRA: the weights, changed by a low-rank matrix of factors (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class HiRA(TargetedPeftMethod):
    """The update is the elementwise product of the frozen weights and a low-rank matrix."""

    info = MethodInfo(
        name="hira",
        title="HiRA",
        family="low_rank",
        order=34,
        paper="Huang et al. 2025, OpenReview:TwJrTz9cRS",
        citations=("huang2025hira",),
        trained="low-rank factors of the frozen weights' elements",
        about=(
            "adds to each weight matrix its elementwise product with a learned low-rank matrix, so "
            "that the update itself has high rank."
        ),
        aliases=r"\bhira\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        learning_rates={
            "encoder": DefaultRate(4.5e-3, "as for decoders: the update is scaled by the weights"),
            "decoder": compared(4.5e-3),
        },
    )
    added_in = (0, 20)

    rank: Count = 32
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Up-projections start at zero, so the outputs are unchanged at first."""
        from peft import HiraConfig

        return HiraConfig(
            **self.common(model, context),
            r=self.rank,
            hira_dropout=self.dropout,
        )

    def misfit(self, architecture: Architecture) -> str | None:
        """The rank of an update is that of its matrix at most: beyond it, memory is wasted."""
        return self.too_large("rank", architecture, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (inputs + outputs) for each linear layer in the targets."""
        return self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A rank that the smallest layers allow."""
        return {"rank": 8}
