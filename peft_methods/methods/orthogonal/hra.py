"""HRA: inputs of frozen matrices are reflected by trained Householder matrices (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class HRA(TargetedPeftMethod):
    """A product of `rank` reflections, an even number: each pair starts as the identity."""

    info = MethodInfo(
        name="hra",
        title="HRA",
        family="orthogonal",
        order=2,
        paper="Yuan et al. 2024, arXiv:2405.17484",
        citations=("yuan2024hra",),
        trained="Householder reflections of a matrix's inputs",
        about=(
            "multiplies frozen matrices by a product of trained reflections. It is an "
            "orthogonal method, and the update has low rank."
        ),
        aliases=r"\bhra\b|householder",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-5,  # two equal reflections cancel but for rounding
        learning_rates=AS_LORA,
    )
    takes_transposed = False

    rank: Annotated[int, Field(ge=2, multiple_of=2)] = 8

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Reflections start in pairs that cancel."""
        from peft import HRAConfig

        return HRAConfig(**self.common(model, context), r=self.rank)

    def expected_trainable(self, architecture: Architecture) -> int:
        """rank * inputs for each linear layer in the targets."""
        return self.rank * sum(inputs for inputs, _ in architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """There can be as many reflections as inputs."""
        return self.too_large("rank", architecture, lambda size: size[0])
