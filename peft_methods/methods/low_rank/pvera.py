"""PVeRA: VeRA whose scaled projections are random in training (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.low_rank.vera import VeRA
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class PVeRA(VeRA):
    """In training the projection is drawn from a learned normal distribution; later its mean is.

    PEFT gives no access to the divergence that the paper adds to the loss, so it is not added.
    """

    info = MethodInfo(
        name="pvera",
        title="PVeRA",
        family="low_rank",
        order=21,
        paper="Fillioux et al. 2025, arXiv:2512.07703",
        citations=("fillioux2025pvera",),
        trained="means and variances over shared frozen random matrices, without KL term",
        about=(
            "extends VeRA by variances: in training the projection of each layer is drawn from a "
            "learned normal distribution, and predictions use its mean."
        ),
        aliases=r"\bp-?vera\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # all layers refer to the same matrices
        learning_rates={
            "encoder": DefaultRate(2e-2, "as VeRA's", head=1e-2),
            "decoder": compared(3e-3),
        },
    )
    not_converted = "PEFT has no conversion for its layers"
    added_in = (0, 19)

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The vectors of the outputs start at zero, so the outputs are unchanged at first."""
        from peft import PveraConfig

        return PveraConfig(**self.options(model, context), pvera_dropout=self.dropout)

    def expected_trainable(self, architecture: Architecture) -> int:
        """2 * rank + outputs for each linear layer in the targets."""
        return sum(2 * self.rank + size for _, size in architecture.linear_sizes(self.targets))
