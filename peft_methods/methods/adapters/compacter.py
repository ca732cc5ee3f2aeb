"""Compacter: bottleneck adapters made of sums of Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.adapters.bottleneck import too_narrow
from peft_methods.methods.base import (
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from torch import nn

SOURCE = "the authors' code, for T5-base on GLUE"


@dataclass(frozen=True, kw_only=True)
class Compacter(Method):
    """Two bottlenecks in each layer, at Houlsby's places, whose maps are sums of products.

    A map is the sum of `phm_dim` Kronecker products. Their first factors are shared by all maps of
    the model, the second ones have rank `phm_rank`.
    """

    info = MethodInfo(
        name="compacter",
        title="Compacter",
        family="adapters",
        order=5,
        paper="Karimi Mahabadi et al. 2021, arXiv:2106.04647",
        citations=("mahabadi2021compacter",),
        trained="bottlenecks whose matrices are sums of Kronecker products",
        about=(
            "inserts bottleneck adapters whose matrices are sums of Kronecker products: of small "
            "matrices that all layers share, and of matrices of low rank."
        ),
        aliases=r"compacter(\+\+)?",
        saved_format="peft_methods",
        needs="layer ends",
        start_tolerance=1e-4,  # the factors start small, and not at zero
        strategies=("ddp",),  # FSDP cannot divide weights that layers share
        learning_rates={
            "encoder": DefaultRate(3e-3, SOURCE),
            "decoder": DefaultRate(3e-3, SOURCE),
        },
    )

    reduction_factor: Count = 32
    phm_dim: Count = 4
    phm_rank: Count = 1

    def width(self, hidden: int) -> int:
        """The bottleneck's width."""
        return hidden // self.reduction_factor

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the model and wrap both ends of each layer."""
        from peft_methods.methods.adapters.modules import BeforeResidual, adapted_layers, wrap
        from peft_methods.methods.adapters.phm import PHMBottleneck, shared_factors

        freeze_all_but(model, context.head)
        hidden, factors = context.architecture.hidden, shared_factors(self.phm_dim)
        for layer, ends in adapted_layers(model, context.architecture.ends):
            for path in (ends.attention_end, ends.ffn_end):
                block = PHMBottleneck(hidden, self.width(hidden), self.phm_rank, factors)
                wrap(layer, path, BeforeResidual, block)
        return model.to(next(model.parameters()).device)

    def expected_trainable(self, architecture: Architecture) -> int:
        """Factors of two maps with biases for each of two places, and the shared factors."""
        hidden, width = architecture.hidden, self.width(architecture.hidden)
        block = 2 * self.phm_rank * (hidden + width) + hidden + width
        return architecture.adapted_layers * 2 * block + self.phm_dim**3

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """`phm_dim` has to divide the widths of the layers and the bottleneck.

        `phm_rank` is that of the parts at most.
        """
        reason = super().unsupported(architecture, device)
        if reason := reason or too_narrow(self, self.reduction_factor, architecture):
            return reason
        hidden, width = architecture.hidden, self.width(architecture.hidden)
        if hidden % self.phm_dim == 0 and width % self.phm_dim == 0:
            most = min(hidden, width) // self.phm_dim
            if self.phm_rank <= most:
                return None
            return (
                f"{self.title}: methods.{self.name}.phm_rank = {self.phm_rank} is too large for "
                f"maps between the widths {hidden} and {width} in {architecture.model_type!r}, in "
                f"{self.phm_dim} parts: set it to {most} or less"
            )
        return (
            f"{self.title}: methods.{self.name}.phm_dim = {self.phm_dim} does not divide the "
            f"widths {hidden} and {width} in {architecture.model_type!r}: set it to a common "
            f"divisor, or change reduction_factor"
        )

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A bottleneck that is wide enough for a tiny model."""
        return {"reduction_factor": 4}
