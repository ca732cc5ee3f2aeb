"""Bottleneck adapters: small trained blocks within each frozen layer, at Houlsby's or Pfeiffer's places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peft_methods.layouts import LAYOUTS, ModelShape
from peft_methods.methods.base import Method, Task, freeze_all_but
from peft_methods.recipe import Count

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """`houlsby`: two a layer, before each residual sum. `pfeiffer`: one a layer, around the last norm.

    The bottleneck is hidden // reduction_factor wide. Without `nonlinearity` each placement has its paper's
    successor's choice (swish for Houlsby, ReLU for Pfeiffer), as in the `adapters` library.
    """

    name = "adapter"
    title = "Bottleneck adapter"
    paper = "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247"
    saved_as = "peft_methods"

    placement: Literal["houlsby", "pfeiffer"] = "pfeiffer"
    reduction_factor: Count = 16
    nonlinearity: Literal["relu", "swish", "gelu"] | None = None

    def width(self, hidden: int) -> int:
        """The bottleneck's width, at least 1."""
        return max(1, hidden // self.reduction_factor)

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Freeze the encoder and wrap each layer; zero up-projections make it start as the identity."""
        from peft_methods.methods.bottleneck import (
            AroundNorm,
            BeforeResidual,
            Bottleneck,
            encoder_layers,
            wrap,
        )

        assert task.shape.layout is not None, "supports() refuses unknown layouts"
        freeze_all_but(model, task.head)
        layout, houlsby = LAYOUTS[task.shape.layout], self.placement == "houlsby"
        act = self.nonlinearity or ("swish" if houlsby else "relu")
        places = (layout.attention_end, layout.ffn_end) if houlsby else (layout.ffn_norm,)
        for layer in encoder_layers(model, task.shape.layout):
            for path in places:
                block = Bottleneck(task.shape.hidden, self.width(task.shape.hidden), act)
                wrap(layer, path, BeforeResidual if houlsby else AroundNorm, block)
        return model.to(next(model.parameters()).device)

    def expected_trainable(self, shape: ModelShape) -> int:
        """Two linear maps with biases a place."""
        places, width = (2 if self.placement == "houlsby" else 1), self.width(shape.hidden)
        return shape.layers * places * (2 * shape.hidden * width + width + shape.hidden)
