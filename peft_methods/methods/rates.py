"""Learning rates that several methods share, each with the source of its value."""

from __future__ import annotations

from collections.abc import Mapping

from peft_methods.methods.base import DefaultRate
from peft_methods.models.config import ModelKind

COMPARISON = "PEFT's method comparison, for Llama-3.2-3B on MetaMathQA"
UNTUNED = f"{COMPARISON}, whose default for all methods it is"
OF_LORA = "LoRA's, for want of a published one"
OF_BITFIT = "BitFit's, for want of a published one"
AS_LORA: Mapping[ModelKind, DefaultRate] = {
    "small_encoder": DefaultRate(2e-3, OF_LORA),
    "encoder": DefaultRate(5e-4, OF_LORA),
}
