"""RandLoRA: updates of full rank as scaled sums of frozen random matrices (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class RandLoRA(TargetedPeftMethod):
    """A lower rank means more random matrices and more parameters."""

    info = MethodInfo(
        name="randlora",
        title="RandLoRA",
        family="low_rank",
        order=22,
        paper="Albert et al. 2025, arXiv:2502.00987",
        citations=("albert2025randlora",),
        trained="scales of frozen random low-rank matrices that add up to full rank",
        about=(
            "adds many frozen random matrices of low rank, which together have full rank, and "
            "learns only vectors that scale them."
        ),
        aliases=r"rand[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # all layers refer to the same matrices
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(3e-4, "PEFT's example, examples/randlora_finetuning"),
        },
    )
    not_converted = ""

    rank: Count = 32
    alpha: Positive = 640
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Half of the scales start at zero, so the outputs are unchanged at first."""
        from peft import RandLoraConfig

        return RandLoraConfig(
            **self.common(model, context),
            r=self.rank,
            randlora_alpha=self.alpha,
            randlora_dropout=self.dropout,
            projection_prng_key=drawn_seed(),
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """For each matrix of `rank` that the shorter side takes: rank + the shorter side."""
        sides = (min(sizes) for sizes in architecture.linear_sizes(self.targets))
        return sum(-(-side // self.rank) * (self.rank + side) for side in sides)

    def misfit(self, architecture: Architecture) -> str | None:
        """The random matrices may not be larger than the targets."""
        return self.too_large("rank", architecture)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A rank that a tiny model has, and an `alpha` of 20 times as much, as by default."""
        return {"rank": 8, "alpha": 160}
