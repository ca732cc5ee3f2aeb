"""LoRA+: LoRA whose up-projections learn at a higher rate (PEFT's)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import DefaultRate, MethodInfo, ParamGroup
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.recipes.schema import Positive

if TYPE_CHECKING:
    from torch import nn

SLOWER = "half of LoRA's, as PEFT's create_loraplus_optimizer advises"


@dataclass(frozen=True, kw_only=True)
class LoRAPlus(LoRA):
    """`learning_rate` is that of the down-projections (A), a multiple of it that of B."""

    info = MethodInfo(
        name="lora_plus",
        title="LoRA+",
        family="low_rank",
        order=14,
        paper="Hayou et al. 2024, arXiv:2402.12354",
        citations=("hayou2024loraplus",),
        trained="low-rank updates with a higher learning rate for one of their factors",
        about=(
            "is LoRA with two learning rates: the factor that starts at zero learns several times "
            "as fast as the other."
        ),
        aliases=r"lora\+(?!\s*[a-z])|lora[\s_-]?plus\b",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "small_encoder": DefaultRate(1e-3, SLOWER),
            "encoder": DefaultRate(2.5e-4, SLOWER),
            "decoder": DefaultRate(1e-4, SLOWER),
        },
    )

    loraplus_lr_ratio: Positive = 16.0

    @classmethod
    def example_settings(cls) -> dict[str, float]:
        """A ratio for the high rate of tiny models: 16 times as much makes the loss unstable."""
        return {"loraplus_lr_ratio": 4.0}

    def param_groups(self, model: nn.Module, head: Sequence[str]) -> Sequence[ParamGroup]:
        """Return the head's group, and one of the up-projections with their own rate."""
        fast = [p for name, p in model.named_parameters() if ".lora_B." in name]
        own = ParamGroup(fast, self.learning_rate * self.loraplus_lr_ratio)
        return (*super().param_groups(model, head), own)
