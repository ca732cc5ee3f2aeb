"""Last layers: only the layers next to the head are trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.methods.base import (
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LastLayers(Method):
    """The last `share` of the layers, at least one; all before them, and a pooler, stay frozen."""

    info = MethodInfo(
        name="last_layers",
        title="Last layers",
        family="selective",
        order=3,
        paper="Lee et al. 2019, arXiv:1911.03090",
        citations=("lee2019elsa",),
        trained="the last layers as a whole",
        about="trains all weights of the last layers and freezes those before them.",
        aliases=r"(last|top)[\s_-](\w+[\s_-])?layers?|partial fine[\s_-]?tun",
        cost_in_forward_passes=1.5,  # a quarter of the layers is trained, and none before them
        learning_rates={
            "small_encoder": DefaultRate(1e-4, "full fine-tuning's, of which it is a part"),
            "encoder": DefaultRate(2e-5, "full fine-tuning's, of which it is a part"),
            "decoder": DefaultRate(2e-5, "full fine-tuning's, of which it is a part"),
        },
    )

    share: Annotated[float, Field(gt=0, lt=1)] = 0.25

    def count(self, architecture: Architecture) -> int:
        """The number of layers that are trained."""
        return max(1, round(self.share * architecture.layers))

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Make the last layers and the head trainable."""
        architecture = context.architecture
        first = architecture.layers - self.count(architecture)
        pattern = re.compile(rf"(?:.*\.)?{architecture.parts.layers_pattern()}\.(\d+)")
        chosen = [
            name
            for name, _ in model.named_modules()
            if (found := pattern.fullmatch(name)) and int(found.group(1)) >= first
        ]
        freeze_all_but(model, (*context.head, *chosen))
        return model

    def expected_trainable(self, architecture: Architecture) -> int:
        """All parameters of these layers."""
        return self.count(architecture) * architecture.sizes.layer

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """Layers must not share their weights, and the first one stays frozen."""
        if reason := super().unsupported(architecture, device):
            return reason
        kind = architecture.model_type
        if architecture.layers != architecture.distinct_layers:
            return f"{self.title}: the layers of {kind!r} share their weights"
        if self.count(architecture) >= architecture.layers:
            return (
                f"{self.title}: methods.{self.name}.share = {self.share} is all layers of this "
                f"{kind!r}: set it lower"
            )
        return None
