"""DoRA: LoRA for the direction of the weights, and a trained length of each row (PEFT's)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """LoRA's parameters and one length for each output."""

    info = MethodInfo(
        name="dora",
        title="DoRA",
        family="low_rank",
        order=10,
        paper="Liu et al. 2024, arXiv:2402.09353",
        citations=("liu2024dora",),
        trained="low-rank updates of the weights' direction, and their length for each output",
        about=(
            "splits each weight matrix into directions and lengths. A low-rank update changes the "
            "directions, and the lengths are trained as such."
        ),
        aliases=r"\bdora\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        reads_weights=True,
        start_tolerance=1e-4,  # dividing by the length and multiplying by it rounds
        learning_rates={
            **AS_LORA,
            "decoder": DefaultRate(3e-4, "PEFT's example, examples/dora_finetuning"),
        },
    )
    not_converted = "PEFT would leave its lengths out"

    def variant(self) -> dict[str, Any]:
        """DoRA is a switch of LoRA's."""
        return {"use_dora": True}

    def expected_trainable(self, architecture: Architecture) -> int:
        """LoRA's, and the outputs of each linear layer in the targets."""
        lengths = sum(size for _, size in architecture.linear_sizes(self.targets))
        return super().expected_trainable(architecture) + lengths

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """None: LoRA's are not its own."""
        return ()
