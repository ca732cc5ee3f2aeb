"""Parallel adapters: trained bottlenecks beside the frozen feed-forward blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peft_methods.methods.adapters.bottleneck import Adapter, too_narrow
from peft_methods.methods.base import (
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Positive

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ParallelAdapter(Method):
    """A bottleneck on the input of each feed-forward block; `scaling` times its output is added.

    In a pre-norm layer the input is the normalised one. The defaults are those of the paper's
    largest variant, which the `adapters` library has too.
    """

    info = MethodInfo(
        name="parallel_adapter",
        title="Parallel adapter",
        family="adapters",
        order=4,
        paper="He et al. 2022, arXiv:2110.04366",
        citations=("he2022unified",),
        trained="bottlenecks beside the feed-forward blocks",
        about=(
            "puts a small trained block with a narrow middle beside each frozen feed-forward "
            "block: both read the same input, and their outputs are added."
        ),
        aliases=r"parallel[\s_-]*adapters?|adapters?[\s_-]*\(?parallel|\bpar[\s_-]?bn\b",
        saved_format="peft_methods",
        learning_rates={
            "small_encoder": DefaultRate(
                2e-4, "of 2e-4, 5e-4, 2e-3 and 5e-3 the best loss of MiniLM-L6, one seed"
            ),
            "encoder": DefaultRate(1e-4, "the authors' code, for RoBERTa-base on SST-2"),
            "decoder": Adapter.info.learning_rates["decoder"],
        },
    )

    reduction_factor: Count = 2
    scaling: Positive = 4.0
    nonlinearity: Literal["relu", "swish", "gelu"] = "relu"

    def width(self, hidden: int) -> int:
        """The bottleneck's width."""
        return hidden // self.reduction_factor

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the model and wrap the ends of each block. The outputs are unchanged at first."""
        from peft_methods.methods.adapters.modules import (
            Bottleneck,
            InputKept,
            ParallelSum,
            adapted_layers,
            wrap,
        )

        freeze_all_but(model, context.head)
        architecture = context.architecture
        hidden, parts = architecture.hidden, architecture.parts
        for layer, ends in adapted_layers(model, architecture.ends):
            block = Bottleneck(hidden, self.width(hidden), self.nonlinearity)
            begin = wrap(layer, parts.ffn_input, InputKept)
            wrap(layer, ends.ffn_end, ParallelSum, block, begin, self.scaling)
        return model.to(next(model.parameters()).device)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; the bottleneck must not be narrower than 1."""
        reason = super().unsupported(architecture, device)
        return reason or too_narrow(self, self.reduction_factor, architecture)

    def expected_trainable(self, architecture: Architecture) -> int:
        """Two linear maps with biases for each layer."""
        hidden, width = architecture.hidden, self.width(architecture.hidden)
        return architecture.adapted_layers * (2 * hidden * width + width + hidden)
