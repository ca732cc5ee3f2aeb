"""OSF: the small singular directions of frozen matrices are trained (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, compared
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class OSF(TargetedPeftMethod):
    """The share `effective_rank` of the largest singular directions is kept.

    The others are trained, and their gradients are made orthogonal to those that are kept.
    """

    info = MethodInfo(
        name="osf",
        title="OSF",
        family="orthogonal",
        order=5,
        paper="Nayak et al. 2025, arXiv:2504.07097",
        citations=("nayak2025osf",),
        trained="the smaller singular directions of chosen matrices, by default half of them",
        about=(
            "splits frozen matrices into singular directions, keeps the large ones and "
            "trains the small ones orthogonally to them, so that less of what the model "
            "knew is lost."
        ),
        aliases=r"\bosft?\b|orthogonal subspace",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-5,  # two equal products are subtracted
        strategies=("ddp",),  # FSDP replaces parameters, and with them the hooks of gradients
        learning_rates={**AS_LORA, "decoder": compared(5e-5)},
    )
    takes_transposed = False

    effective_rank: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The product of the trained directions starts as it is in the matrix."""
        from peft import OSFConfig

        return OSFConfig(**self.common(model, context), effective_rank=self.effective_rank)

    def expected_trainable(self, architecture: Architecture) -> int:
        """inputs + outputs + 1 for each trained direction of each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return sum((sum(size) + 1) * (min(size) - self.kept(size)) for size in sizes)

    def kept(self, size: tuple[int, int]) -> int:
        """The number of directions that are kept of a matrix with these inputs and outputs."""
        return int(min(size) * self.effective_rank)

    def misfit(self, architecture: Architecture) -> str | None:
        """At least one direction has to be kept."""
        if all(map(self.kept, architecture.linear_sizes(self.targets))):
            return None
        return (
            f"{self.title}: methods.{self.name}.effective_rank = {self.effective_rank} keeps no "
            f"direction of a target in {architecture.model_type!r}: set it higher"
        )
