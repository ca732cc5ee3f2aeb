"""QDoRA: DoRA over a base held in 4-bit NormalFloat with double quantisation (bitsandbytes)."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.dora import DoRA
from peft_methods.methods.low_rank.qlora import QLoRA
from peft_methods.methods.rates import AS_QLORA


@dataclass(frozen=True, kw_only=True)
class QDoRA(QLoRA, DoRA):
    """QLoRA's base and DoRA's parameters."""

    info = MethodInfo(
        name="qdora",
        title="QDoRA",
        family="low_rank",
        order=5,
        paper="Liu et al. 2024, arXiv:2402.09353",
        citations=("liu2024dora",),
        trained=(
            "low-rank updates of the direction of 4-bit weights, and their length for each output"
        ),
        about="is DoRA over a model whose frozen weights are held in a 4-bit number format.",
        aliases=r"q-?dora|dora.*(4-?bit|nf4)|(4-?bit|nf4).*dora",
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 4 bits would give a different model
        start_tolerance=1.0,
        strategies=("ddp",),  # the lengths are of whole rows
        quantization="nf4",
        unquantized_counterpart="dora",
        learning_rates=AS_QLORA,
    )
