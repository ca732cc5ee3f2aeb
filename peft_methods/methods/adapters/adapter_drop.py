"""AdapterDrop: bottleneck adapters in all layers but the first ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from peft_methods.methods.adapters.bottleneck import Adapter
from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.models.architecture import Architecture

SOURCE = "Karimi Mahabadi et al. 2021, their code for T5-base on GLUE"


@dataclass(frozen=True, kw_only=True)
class AdapterDrop(Adapter):
    """The first layers have no adapters, in training and afterwards.

    `share` of the layers is left out, rounded down: by default 5 of 12. This is the paper's variant
    for a fixed number of layers; in its other one the number changes from batch to batch.
    """

    info = MethodInfo(
        name="adapter_drop",
        title="AdapterDrop",
        family="adapters",
        order=3,
        paper="Rücklé et al. 2021, arXiv:2010.11918",
        citations=("ruckle2021adapterdrop",),
        trained="bottlenecks in all layers but the first ones",
        about=(
            "trains bottleneck adapters in the last layers alone. No gradient has to go through "
            "the first layers, and several tasks can share their outputs."
        ),
        aliases=r"adapter[\s_-]?drop",
        saved_format="peft_methods",
        cost_in_forward_passes=1.6,  # gradients go through 7 of 12 layers
        learning_rates={
            "small_encoder": Adapter.info.learning_rates["small_encoder"],
            "encoder": DefaultRate(3e-4, SOURCE),
            "decoder": Adapter.info.learning_rates["decoder"],
        },
    )

    share: Annotated[float, Field(ge=0, lt=1)] = 0.42

    def dropped(self, architecture: Architecture) -> int:
        """This share of the layers, rounded down."""
        return int(self.share * architecture.layers)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """Layers that share their weights have the same adapters."""
        if reason := super().unsupported(architecture, device):
            return reason
        if architecture.layers == architecture.distinct_layers:
            return None
        return f"{self.title}: the layers of {architecture.model_type!r} share their weights"

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Those of adapters in all layers, times the part of the layers that has them."""
        layers = architecture.adapted_layers
        for whole in super().possible_counts(architecture):
            yield from (whole // layers * some for some in range(1, layers + 1))

    @classmethod
    def example_settings(cls) -> dict[str, Any]:
        """Adapters in the second of two layers."""
        return {"reduction_factor": 4, "share": 0.5}
