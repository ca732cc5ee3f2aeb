"""IA3 at the places that PEFT chooses where none are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.peft_method import Targets
from peft_methods.methods.rates import compared
from peft_methods.methods.scaling.ia3 import IA3
from peft_methods.models.architecture import Architecture

# Model types for which PEFT's default differs from the paper's targets. `output.dense` is the end
# of its name for the feed-forward block's second layer, and the attention's output ends so too.
DIFFERENT = ("bert", "roberta", "deberta-v2")


@dataclass(frozen=True, kw_only=True)
class IA3PEFT(IA3):
    """PEFT's default targets: it also rescales the inputs of the attention's output layer."""

    info = MethodInfo(
        name="ia3_peft",
        title="IA3 with PEFT's targets",
        family="scaling",
        order=1,
        paper="Liu et al. 2022, arXiv:2205.05638",
        citations=("liu2022ia3",),
        trained=(
            "scales of keys, values, feed-forward activations and the attention's output: PEFT's "
            "default, not the paper's targets"
        ),
        about=(
            "rescales, besides the places of the paper, the inputs of the attention's output "
            "layer: PEFT's default finds it by its name."
        ),
        aliases=r"ia3[\s_-]*(\(?peft|with peft's targets)",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "encoder": DefaultRate(1e-3, "PEFT's example, for RoBERTa-large on MRPC"),
            "decoder": compared(1e-3),
        },
    )

    scaled_at_inputs: ClassVar[tuple[str, ...]] = ("attention_output", "ffn_output")

    targets: Targets = ("key", "value", "attention_output", "ffn_output")

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """Other models have the paper's targets by default, or none."""
        if architecture.model_type in DIFFERENT:
            return super().unsupported(architecture, device)
        return (
            f"{self.title}: for {architecture.model_type!r} PEFT has the paper's targets or none; "
            f"this is for {', '.join(DIFFERENT)}"
        )
