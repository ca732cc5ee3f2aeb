"""OLoRA: LoRA that starts from a QR decomposition, taken out of the weights (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class OLoRA(LoRA):
    """The base keeps the rest of each weight matrix, frozen.

    Loading a saved model takes the same part out of the base weights again.
    """

    info = MethodInfo(
        name="olora",
        title="OLoRA",
        family="low_rank",
        order=13,
        paper="Büyükakyüz 2024, arXiv:2406.01775",
        citations=("buyukakyuz2024olora",),
        trained="low-rank updates that start with orthonormal columns",
        about=(
            "starts LoRA's factors from a QR decomposition of the weights, with orthonormal "
            "columns, and takes their product out of the frozen base."
        ),
        aliases=r"(?<![a-z])olora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-4,  # the weights are split into a sum, which rounds
        strategies=("ddp",),  # it decomposes whole weights
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(3e-4, "PEFT's example, examples/olora_finetuning"),
        },
    )
    # PEFT 0.21 decomposes them as they are stored: rows and columns are exchanged.
    takes_transposed = False
    not_converted = "PEFT would add its update to weights that it was not trained on"

    def variant(self) -> dict[str, Any]:
        """It is a start of LoRA's."""
        return {"init_lora_weights": "olora"}

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many columns as the shorter side."""
        return self.too_large("rank", architecture)
