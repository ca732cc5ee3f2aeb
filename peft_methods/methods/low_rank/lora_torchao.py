"""LoRA over a base of 8-bit integers, quantised by torchao."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.lora import VARIANTS, LoRA
from peft_methods.methods.rates import AS_QLORA


@dataclass(frozen=True, kw_only=True)
class LoRATorchAO(LoRA):
    """Integers are converted for each product, whose factors have the budget's precision.

    Autograd keeps the converted weights for the backward pass (torchao 0.18), so a training without
    activation checkpointing needs their memory beside that of the integers.
    """

    info = MethodInfo(
        name="lora_torchao",
        title="LoRA over torchao int8",
        family="low_rank",
        order=4,
        paper="Or et al. 2025, arXiv:2507.16099",
        citations=("or2025torchao",),
        trained="low-rank updates over a base of 8-bit integers (torchao; on CPU too)",
        about=(
            "trains LoRA's updates over a model whose frozen weights torchao holds as integers of "
            "8 bits, with a scale for each row."
        ),
        aliases=r"lora.*torch-?ao|torch-?ao.*lora",
        not_aliases=VARIANTS,
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # rounding the sum to 8 bits would give a different model
        start_tolerance=1.0,
        strategies=(),  # DDP sends flat views of weights, which torchao 0.18 has none of
        quantization="torchao_int8",
        unquantized_counterpart="lora",
        learning_rates=AS_QLORA,
    )
    added_in = (0, 21)  # earlier versions do not know the tensors of torchao 0.18
    extra = "torchao"
    takes_transposed = False
    not_converted = "PEFT converts no layers whose weights are quantised"
