"""TinyLoRA: a few numbers per layer that mix random updates within its main subspace (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class TinyLoRA(TargetedPeftMethod):
    """`u` is the number of trained weights, `weight_tying` the share of layers that share theirs.

    The frozen singular vectors are saved with the model.
    """

    info = MethodInfo(
        name="tinylora",
        title="TinyLoRA",
        family="low_rank",
        order=41,
        paper="Morris et al. 2026, arXiv:2602.04118",
        citations=("morris2026tinylora",),
        trained="a short vector per layer that mixes random matrices between singular vectors",
        about=(
            "learns a short vector for each layer, or for several, whose elements weigh frozen "
            "random matrices between the first singular vectors of the weights."
        ),
        aliases=r"tiny[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # layers may share a vector
        learning_rates={
            "encoder": DefaultRate(2e-2, "as VeRA's, whose vectors are as few", head=1e-2),
            "decoder": compared(1e-3),
        },
    )
    added_in = (0, 19)
    not_converted = ""

    rank: Count = 2
    u: Count = 64
    weight_tying: Share = 0.0
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The vectors start at zero, so the outputs are unchanged at first."""
        from peft import TinyLoraConfig

        return TinyLoraConfig(
            **self.common(model, context),
            r=self.rank,
            u=self.u,
            weight_tying=self.weight_tying,
            projection_seed=drawn_seed() // 2,  # PEFT adds the number of the layer
            tinylora_dropout=self.dropout,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """`u` weights for each group of linear layers; without tying, each is a group."""
        layers = len(architecture.linear_sizes(self.targets))
        return self.u * max(1, round(layers * (1 - self.weight_tying)))

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many singular vectors as the shorter side."""
        return self.too_large("rank", architecture)
