"""LoRA over a base of 8-bit integers: LLM.int8() (bitsandbytes)."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.lora import VARIANTS
from peft_methods.methods.low_rank.qlora import QLoRA
from peft_methods.methods.rates import AS_QLORA


@dataclass(frozen=True, kw_only=True)
class LoRAInt8(QLoRA):
    """Inputs are rounded to half precision or less in the products, whatever `budget.precision`."""

    info = MethodInfo(
        name="lora_int8",
        title="LoRA over LLM.int8()",
        family="low_rank",
        order=4,
        paper="Dettmers et al. 2022, arXiv:2208.07339",
        citations=("dettmers2022int8",),
        trained="low-rank updates over a base of 8-bit integers (bitsandbytes; on CPU too)",
        about=(
            "trains LoRA's updates over a model whose frozen weights are held as integers of 8 "
            "bits, with a scale for each row."
        ),
        aliases=r"lora.*(int-?8|8-?bit)|(int-?8|8-?bit).*lora",
        not_aliases=rf"{VARIANTS}|torch-?ao",
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 8 bits would give a different model
        start_tolerance=1.0,
        strategies=("ddp",),  # FSDP divides no integers
        quantization="int8",
        unquantized_counterpart="lora",
        learning_rates=AS_QLORA,
    )
