"""LoRA: a trained low-rank update beside frozen linear maps (PEFT's)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import MEASURED, ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


HIGHEST_RANK = 512  # the highest rank that published tables are compared with
# Other methods, whose names contain LoRA's.
VARIANTS = (
    r"(?<![a-z])((ada|delta|dy|gra|long|qa|rand|rs|tiny|uni|vb|x)[\s_-]?|de|g|o)lora"
    r"|lora(\+|[\s_-]?(fa|plus|xs)\b)"
)


@dataclass(frozen=True, kw_only=True)
class LoRA(TargetedPeftMethod):
    """Low-rank updates of the `targets`, roles of a layer's linear maps (see `ROLES`)."""

    info = MethodInfo(
        name="lora",
        title="LoRA",
        family="low_rank",
        order=0,
        paper="Hu et al. 2022, arXiv:2106.09685",
        citations=("hu2022lora",),
        trained="low-rank updates (PEFT)",
        about=(
            "adds to chosen weight matrices a trained update of low rank. The matrices themselves "
            "stay frozen, and the update can be folded into them after training."
        ),
        aliases="lora",
        not_aliases=VARIANTS,
        color="#0072b2",
        marker="o",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "small_encoder": DefaultRate(2e-3, MEASURED),
            "encoder": DefaultRate(5e-4, "the paper's, table 9, for SST-2 on a base model"),
            "decoder": DefaultRate(2e-4, "the paper's, table 11, for GPT-2"),
        },
    )
    not_converted = ""

    rank: Count = 8
    alpha: Positive = 16
    dropout: Dropout = 0.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Up-projections start at zero, so the outputs are unchanged at first."""
        from peft import LoraConfig

        return LoraConfig(
            **self.common(model, context),
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            **self.variant(),
        )

    def variant(self) -> dict[str, Any]:
        """Return the arguments of `LoraConfig` that make a variant of it. LoRA itself has none."""
        return {}

    def misfit(self, architecture: Architecture) -> str | None:
        """The rank of an update is that of its matrix at most: beyond it, memory is wasted."""
        return self.too_large("rank", architecture, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * (inputs + outputs) for each linear layer in the targets."""
        return self.rank * sum(map(sum, architecture.linear_sizes(self.targets)))

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Every set of targets at every rank.

        PEFT's "all-linear" and "dense" take a pooler for one more linear layer.
        """
        layers = architecture.linear_layers
        sets = itertools.product((0, 1), repeat=len(layers))
        units = {
            architecture.distinct_layers
            * sum(
                chosen * (one.inputs + one.outputs) for chosen, one in zip(own, layers, strict=True)
            )
            for own in sets
        } - {0}
        if architecture.pooler:
            units |= {unit + 2 * architecture.hidden for unit in units}
        return (unit * rank for unit in units for rank in range(1, HIGHEST_RANK + 1))
