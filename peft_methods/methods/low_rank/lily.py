"""Lily: low-rank updates whose up-projections are shared by the layers and mixed (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.low_rank.lora import AS_LORA, compared
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Lily(TargetedPeftMethod):
    """`stride_A` neighbouring layers share a down-projection; all share `num_B` up-projections.

    PEFT shares between layers of the same target. It takes a pattern for a single target, so the
    targets are given as names here, which must end no other layer's name.
    """

    info = MethodInfo(
        name="lily",
        title="Lily",
        family="low_rank",
        order=37,
        paper="Zhong et al. 2024, arXiv:2407.09946",
        citations=("zhong2024lily",),
        trained="down-projections, shared up-projections, and routers that mix those",
        about=(
            "gives each layer a down-projection and a router, which mixes a few up-projections "
            "that are shared by all layers according to the input."
        ),
        aliases=r"\blily\b",
        saved_format="peft",
        needs="module map",
        mergeable=False,  # the mixture depends on the input
        strategies=("ddp",),  # layers share their up-projections
        learning_rates={**AS_LORA, "decoder": compared(1e-4)},
    )
    added_in = (0, 19)
    takes_transposed = False

    rank: Count = 32
    stride_A: Count = 1  # noqa: N815  # PEFT's name
    num_B: Annotated[int, Field(ge=2)] = 2  # noqa: N815  # PEFT's name
    scaling: Positive = 1.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Up-projections start at zero, so the outputs are unchanged at first."""
        from peft import LilyConfig

        paths = list(context.architecture.parts.paths(self.targets))
        return LilyConfig(
            **{**self.common(context), "target_modules": paths},
            r=self.rank,
            stride_A=self.stride_A,
            num_B=self.num_B,
            scaling=self.scaling,
        )

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; the names of the targets must name them alone."""
        reason = super().unsupported(architecture, device)
        if reason is not None:
            return reason
        paths = architecture.parts.paths(self.targets)
        others = set(architecture.parts.linear_layers()) - set(paths)
        for path in paths:
            if wrong := [one for one in others if one.endswith(f".{path}")]:
                return (
                    f"{self.title} cannot tell {path!r} from {wrong[0]!r} in "
                    f"{architecture.model_type!r}: set methods.{self.name}.targets to others"
                )
        return None

    def expected_trainable(self, architecture: Architecture) -> int:
        """Down-projections and routers for the layers, and one set of up-projections a target."""
        layers, wanted = architecture.distinct_layers, set(self.targets)
        return self.rank * sum(
            -(-layers // self.stride_A) * one.inputs + self.num_B * (layers + one.outputs)
            for one in architecture.linear_layers
            if wanted & set(one.roles)
        )
