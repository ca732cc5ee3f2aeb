"""RoAd: pairs of outputs of frozen matrices are rotated and scaled (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class RoAd(TargetedPeftMethod):
    """The outputs of a pair are half a `group_size` apart.

    `variant` says how many angles and scales there are: one of each for a pair of outputs
    (`road_1`), for each output (`road_2`), or two of each for each output (`road_4`).
    """

    info = MethodInfo(
        name="road",
        title="RoAd",
        family="orthogonal",
        order=4,
        paper="Liao & Monz 2024, arXiv:2409.00119",
        citations=("liao2024road",),
        trained="angles and scales of pairs of outputs",
        about=(
            "rotates and scales pairs of the outputs of frozen matrices. It has few "
            "parameters, and a rotation is cheap to compute."
        ),
        aliases=r"\broad\b|2d rotary adaptation",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "encoder": DefaultRate(1e-3, "PEFT's documentation of RoAd"),
            "decoder": compared(1e-3),
        },
    )
    takes_transposed = False

    variant: Literal["road_1", "road_2", "road_4"] = "road_1"
    group_size: Annotated[int, Field(ge=2, multiple_of=2)] = 64

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Angles start at zero, scales at one."""
        from peft import RoadConfig

        return RoadConfig(
            **self.common(model, context),
            variant=self.variant,
            group_size=self.group_size,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """outputs times 1, 2 or 4 (by `variant`) for each linear layer in the targets."""
        each = {"road_1": 1, "road_2": 2, "road_4": 4}[self.variant]
        return each * sum(outputs for _, outputs in architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """Groups have to divide the outputs."""
        return self.does_not_divide("group_size", architecture, lambda size: size[1:])

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"group_size": 8}
