"""VeRA: frozen random matrices for all layers, and trained vectors that scale them (PEFT's)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class VeRA(TargetedPeftMethod):
    """The random matrices are drawn from the seed of the run and saved with the model."""

    info = MethodInfo(
        name="vera",
        title="VeRA",
        family="low_rank",
        order=20,
        paper="Kopiczko et al. 2024, arXiv:2310.11454",
        citations=("kopiczko2024vera",),
        trained="vectors that scale one pair of frozen random matrices, shared by all layers",
        about=(
            "shares one pair of frozen random matrices among all layers and learns only two "
            "vectors for each layer, which scale their rows and columns."
        ),
        aliases=r"\bvera\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # all layers refer to the same matrices
        learning_rates={
            "encoder": DefaultRate(2e-2, "PEFT's example, for RoBERTa-base on MRPC", head=1e-2),
            "decoder": compared(1e-3),
        },
    )
    not_converted = ""

    rank: Count = 256
    dropout: Dropout = 0.0
    d_initial: Positive = 0.1

    def options(self, model: nn.Module, context: ApplyContext) -> dict[str, Any]:
        """Return the arguments of the config but for the dropout."""
        return {
            **self.common(model, context),
            "r": self.rank,
            "d_initial": self.d_initial,
            "projection_prng_key": drawn_seed(),
        }

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The vectors of the outputs start at zero, so the outputs are unchanged at first."""
        from peft import VeraConfig

        return VeraConfig(**self.options(model, context), vera_dropout=self.dropout)

    def misfit(self, architecture: Architecture) -> str | None:
        """A matrix has as many independent directions as weights, and each rank scales one.

        The rank may exceed its sides: the paper's do.
        """
        return self.too_large("rank", architecture, math.prod, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank + outputs for each linear layer in the targets."""
        return sum(self.rank + size for _, size in architecture.linear_sizes(self.targets))
