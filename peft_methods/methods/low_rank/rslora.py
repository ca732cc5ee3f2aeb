"""rsLoRA: LoRA whose scale falls with the root of the rank (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.rates import AS_LORA


@dataclass(frozen=True, kw_only=True)
class RsLoRA(LoRA):
    """The update is scaled by alpha over the root of the rank, not over the rank."""

    info = MethodInfo(
        name="rslora",
        title="rsLoRA",
        family="low_rank",
        order=11,
        paper="Kalajdzievski 2023, arXiv:2312.03732",
        citations=("kalajdzievski2023rslora",),
        trained="low-rank updates, scaled by the root of the rank",
        about=(
            "is LoRA with another scale: the update is divided by the root of the rank, so that "
            "higher ranks do not learn more slowly."
        ),
        aliases=r"rs[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates=AS_LORA,
    )

    def variant(self) -> dict[str, Any]:
        """The scale is a switch of LoRA's."""
        return {"use_rslora": True}
