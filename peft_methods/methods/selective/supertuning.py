"""Super-Tuning: the largest weights of frozen matrices are trained (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SuperTuning(TargetedPeftMethod):
    """All but the share `sparsity` of a matrix, chosen by size: the largest, or the smallest."""

    info = MethodInfo(
        name="supertuning",
        title="Super-Tuning",
        family="selective",
        order=11,
        paper="Ilin et al. 2026, arXiv:2607.09287",
        citations=("ilin2026supertuning",),
        trained="the largest weights of chosen matrices",
        about=(
            "trains those weights of chosen matrices that are largest before training, and "
            "leaves the others frozen."
        ),
        aliases=r"super[\s_-]?tuning",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        strategies=("ddp",),  # the places of the weights are not among what FSDP saves
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    added_in = (0, 21)
    takes_transposed = False

    sparsity: Share = 0.99
    select_top: bool = True

    @classmethod
    def example_settings(cls) -> dict[str, float]:
        """One weight in ten: a hundredth of a small matrix is too little to learn with."""
        return {"sparsity": 0.9}

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The update starts at zero."""
        from peft import SupertuningConfig

        return SupertuningConfig(
            **self.common(model, context),
            sparsity=self.sparsity,
            select_top=self.select_top,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """(1 - sparsity) * inputs * outputs, rounded down, for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum(self.chosen(inputs * outputs) for inputs, outputs in sizes)

    def chosen(self, weights: int) -> int:
        """The number of trained weights of a matrix with this number of weights."""
        return int(weights * (1 - self.sparsity))

    def misfit(self, architecture: Architecture) -> str | None:
        """At least one weight has to be trained."""
        sizes = architecture.linear_sizes(self.targets)
        if all(self.chosen(inputs * outputs) for inputs, outputs in sizes):
            return None
        return (
            f"{self.title}: methods.{self.name}.sparsity = {self.sparsity} leaves nothing to "
            f"train in {architecture.model_type!r}: set it lower"
        )
