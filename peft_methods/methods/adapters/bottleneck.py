"""Bottleneck adapters: small trained blocks within each frozen layer (Houlsby's or Pfeiffer's)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peft_methods.methods.base import (
    MEASURED,
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


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """Bottlenecks in each layer, at one of two placements.

    `houlsby`: two, each before a residual sum. `pfeiffer`: one, around the last norm; in a layer
    that has no norm after its sums (decoders, T5, ModernBERT), on the feed-forward block's output.
    In an encoder-decoder's decoder, self-attention counts and attention to the encoder does not.

    The bottleneck is hidden // reduction_factor wide. The default `nonlinearity` depends on the
    placement, as in the `adapters` library: swish for Houlsby, ReLU for Pfeiffer.
    """

    info = MethodInfo(
        name="adapter",
        title="Bottleneck adapter",
        family="adapters",
        order=0,
        paper="Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247",
        citations=("houlsby2019adapters", "pfeiffer2021fusion"),
        trained="bottlenecks at Houlsby's or Pfeiffer's places",
        about=(
            "inserts small trained blocks with a narrow middle, each with a residual connection "
            "around it, into the frozen layers."
        ),
        generic_aliases=r"adapter\w*|pfeiffer|bottleneck",
        not_aliases=r"llama[\s_-]?adapter",
        color="#e69f00",
        marker="X",
        saved_format="peft_methods",
        needs="layer ends",
        learning_rates={
            "small_encoder": DefaultRate(2e-3, MEASURED),
            "encoder": DefaultRate(
                1e-4, "AdapterHub's guide, for GLUE with batches of 32 and 128 tokens"
            ),
            "decoder": DefaultRate(
                1e-4, "Hu et al. 2022, arXiv:2106.09685, table 12, for Houlsby's in GPT-3"
            ),
        },
    )

    placement: Literal["houlsby", "pfeiffer"] = "pfeiffer"
    reduction_factor: Count = 16
    nonlinearity: Literal["relu", "swish", "gelu"] | None = None

    def width(self, hidden: int) -> int:
        """The bottleneck's width."""
        return hidden // self.reduction_factor

    def dropped(self, architecture: Architecture) -> int:
        """The number of first layers without adapters."""
        return 0

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the encoder and wrap each layer. The outputs are unchanged at first."""
        from peft_methods.methods.adapters.modules import (
            BeforeResidual,
            Bottleneck,
            adapted_layers,
            wrap,
            wrap_end,
        )

        freeze_all_but(model, context.head)
        hidden = context.architecture.hidden
        houlsby = self.placement == "houlsby"
        act = self.nonlinearity or ("swish" if houlsby else "relu")
        layers = adapted_layers(model, context.architecture.ends)
        for layer, ends in layers[self.dropped(context.architecture) :]:
            if not houlsby:
                wrap_end(layer, ends, Bottleneck(hidden, self.width(hidden), act))
                continue
            for path in (ends.attention_end, ends.ffn_end):
                wrap(layer, path, BeforeResidual, Bottleneck(hidden, self.width(hidden), act))
        return model.to(next(model.parameters()).device)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; the bottleneck must not be narrower than 1."""
        reason = super().unsupported(architecture, device)
        return reason or too_narrow(self, self.reduction_factor, architecture)

    def expected_trainable(self, architecture: Architecture) -> int:
        """Two linear maps with biases for each place."""
        hidden, places = architecture.hidden, 2 if self.placement == "houlsby" else 1
        width, layers = self.width(hidden), architecture.adapted_layers - self.dropped(architecture)
        return layers * places * (2 * hidden * width + width + hidden)

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """One or two bottlenecks in each layer, of any width, with or without their own norms."""
        hidden, places = architecture.hidden, (1, 2)
        widths, norms = range(1, hidden + 1), (0, 2 * hidden)
        for width, place, norm in itertools.product(widths, places, norms):
            yield (
                architecture.adapted_layers * place * (2 * hidden * width + width + hidden + norm)
            )

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """A bottleneck that is wide enough for a tiny model."""
        return {"reduction_factor": 4}


def too_narrow(method: Method, reduction_factor: int, architecture: Architecture) -> str | None:
    """Return why a bottleneck hidden // reduction_factor wide would be empty, or None."""
    if reduction_factor <= architecture.hidden:
        return None
    return (
        f"{method.title}: methods.{method.name}.reduction_factor = {reduction_factor} leaves no "
        f"bottleneck in {architecture.model_type!r}, whose layers are {architecture.hidden} wide: "
        f"set it to {architecture.hidden} or less"
    )
