"""PEANuT: updates are computed from the frozen weights by a small network (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, NotNegativeCount, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class PEANuT(TargetedPeftMethod):
    """Networks of width `rank` map matrices to updates; `depth` layers are on either side."""

    info = MethodInfo(
        name="peanut",
        title="PEANuT",
        family="low_rank",
        order=61,
        paper="Zhong et al. 2024, arXiv:2410.01870",
        citations=("zhong2024peanut",),
        trained="small networks that compute updates from the frozen weights",
        about="trains small networks that take a frozen matrix and return its update.",
        aliases=r"\bpeanut\b|neural tweakers",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    added_in = (0, 19)
    takes_transposed = False

    rank: Count = 32
    depth: NotNegativeCount = 0
    scaling: Positive = 1.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The last map starts at zero, and so does the update."""
        from peft import PeanutConfig

        return PeanutConfig(
            **self.common(model, context),
            r=self.rank,
            depth=self.depth,
            scaling=self.scaling,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """2 * rank * outputs + 2 * depth * rank**2 for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        own = 2 * self.depth * self.rank**2
        return sum(2 * self.rank * outputs + own for _, outputs in sizes)
