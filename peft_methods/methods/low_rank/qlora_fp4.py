"""QLoRA with 4-bit floating-point numbers in place of 4-bit NormalFloat (bitsandbytes)."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.lora import VARIANTS
from peft_methods.methods.low_rank.qlora import QLoRA
from peft_methods.methods.rates import AS_QLORA


@dataclass(frozen=True, kw_only=True)
class QLoRAFP4(QLoRA):
    """QLoRA's authors compare this format with theirs."""

    info = MethodInfo(
        name="qlora_fp4",
        title="QLoRA (FP4)",
        family="low_rank",
        order=3,
        paper="Dettmers et al. 2023, arXiv:2305.14314",
        citations=("dettmers2023qlora",),
        trained=(
            "low-rank updates over a base of 4-bit floating-point numbers with double quantisation "
            "(bitsandbytes; on CPU too)"
        ),
        about=(
            "is QLoRA with usual floating-point numbers of 4 bits, in place of those that its "
            "authors chose for normally distributed weights."
        ),
        aliases=r"q?-?lora.*fp-?4|fp-?4.*lora",
        not_aliases=VARIANTS,
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 4 bits would give a different model
        start_tolerance=1.0,
        quantization="fp4",
        unquantized_counterpart="lora",
        learning_rates=AS_QLORA,
    )
