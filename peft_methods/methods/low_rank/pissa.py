"""PiSSA: LoRA that starts with the weights' main directions, taken out of the base (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class PiSSA(LoRA):
    """The base keeps the rest of each weight matrix, frozen.

    Loading a saved model takes the same part out of the base weights again.
    """

    info = MethodInfo(
        name="pissa",
        title="PiSSA",
        family="low_rank",
        order=12,
        paper="Meng et al. 2024, arXiv:2404.02948",
        citations=("meng2024pissa",),
        trained="the main singular directions of the weights; the rest is frozen",
        about=(
            "trains the part of each weight matrix that lies in its main singular directions, as "
            "LoRA's two factors, and freezes the rest."
        ),
        aliases=r"\bpissa\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=1e-4,  # the weights are split into a sum, which rounds
        strategies=("ddp",),  # it decomposes whole weights
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(2e-5, "PEFT's example, examples/pissa_finetuning"),
        },
    )
    not_converted = "PEFT would add its update to weights that it was not trained on"

    def variant(self) -> dict[str, Any]:
        """The exact decomposition, not the faster random one."""
        return {"init_lora_weights": "pissa"}

    def misfit(self, architecture: Architecture) -> str | None:
        """There are as many directions as rows or columns."""
        return self.too_large("rank", architecture)
