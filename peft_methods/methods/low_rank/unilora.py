"""Uni-LoRA: one trained vector that is spread over all low-rank updates (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class UniLoRA(TargetedPeftMethod):
    """Which element of the vector is where is drawn from the seed of the run."""

    info = MethodInfo(
        name="unilora",
        title="Uni-LoRA",
        family="low_rank",
        order=42,
        paper="Li et al. 2025, arXiv:2506.00799",
        citations=("li2025unilora",),
        trained="one vector whose elements fill all low-rank updates",
        about=(
            "fills the low-rank updates of all layers with the elements of one trained vector, "
            "each of which occurs at many random places."
        ),
        aliases=r"uni[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=2e-2,  # the vector is drawn from ±0.02: the first update is not zero
        strategies=("ddp",),  # all layers share the vector
        learning_rates={
            "encoder": DefaultRate(2e-2, "as VeRA's, which trains as few weights", head=1e-2),
            "decoder": UNTUNED,
        },
    )
    added_in = (0, 20)
    not_converted = ""

    rank: Count = 4
    theta_d_length: Count = 256
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The vector starts at small random values."""
        from peft import UniLoraConfig

        return UniLoraConfig(
            **self.common(model, context),
            r=self.rank,
            theta_d_length=self.theta_d_length,
            unilora_dropout=self.dropout,
            proj_seed=drawn_seed(),
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """The length of the vector, for any model."""
        return self.theta_d_length

    def misfit(self, architecture: Architecture) -> str | None:
        """Every element of the vector must have a place; the rank is that of a target at most."""
        if reason := self.too_large("rank", architecture, every=True):
            return reason
        places = self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))
        if places >= self.theta_d_length:
            return None
        return (
            f"{self.title}: methods.{self.name}.theta_d_length = {self.theta_d_length}, but the "
            f"updates of its targets in {architecture.model_type!r} have {places} weights: set it "
            f"to {places} or less"
        )
