"""GLoRA: low-rank updates that also rescale the weights and shift the biases (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class GLoRA(TargetedPeftMethod):
    """PEFT's default form: low rank for the weights, and one number each for the biases."""

    info = MethodInfo(
        name="glora",
        title="GLoRA",
        family="low_rank",
        order=36,
        paper="Chavan et al. 2023, arXiv:2306.07967",
        citations=("chavan2023glora",),
        trained="low-rank updates and factors of the weights, and changes of the biases",
        about=(
            "adds a low-rank update to each weight matrix, rescales its elements by another one, "
            "and changes the bias by a factor, a constant and a product of the weights."
        ),
        aliases=r"(?<![a-z])g-?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(3e-4, "PEFT's example, examples/glora_finetuning"),
        },
    )
    added_in = (0, 20)
    takes_transposed = False

    rank: Count = 8

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """One factor of each product starts at zero, so the outputs are unchanged at first."""
        from peft import GloraConfig

        return GloraConfig(**self.common(model, context), r=self.rank)

    def misfit(self, architecture: Architecture) -> str | None:
        """The rank of an update is that of its matrix at most: beyond it, memory is wasted."""
        return self.too_large("rank", architecture, every=True)

    def expected_trainable(self, architecture: Architecture) -> int:
        """Two updates for each linear layer; for its bias a column of low rank and two numbers."""
        return sum(
            2 * self.rank * (one.inputs + one.outputs)
            + one.has_bias * (self.rank * (one.inputs + 1) + 2)
            for one in architecture.linear_in_roles(self.targets)
        )

    def has_zero_gradient(self, name: str) -> bool:
        """The factor of a bias has none where the bias is zero, as in a model that is not trained.

        PEFT calls it D.
        """
        return ".glora_D." in name
