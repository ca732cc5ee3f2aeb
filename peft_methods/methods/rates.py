"""Learning rates that several methods share, each with the source of its value."""

from __future__ import annotations

from collections.abc import Mapping

from peft_methods.methods.base import DefaultRate
from peft_methods.models.config import ModelKind

COMPARISON = "PEFT's method comparison, for Llama-3.2-3B on MetaMathQA"

# For methods that PEFT compares at the rate that it has for all.
UNTUNED = DefaultRate(1e-4, f"{COMPARISON}, whose default for all methods it is")

# For methods whose changes of the weights are as large as those of the named one.
AS_LORA: Mapping[ModelKind, DefaultRate] = {
    "small_encoder": DefaultRate(2e-3, "as LoRA's"),
    "encoder": DefaultRate(5e-4, "as LoRA's"),
    "decoder": DefaultRate(2e-4, "as LoRA's"),
}
AS_QLORA: Mapping[ModelKind, DefaultRate] = {
    "small_encoder": DefaultRate(2e-3, "as QLoRA's"),
    "encoder": DefaultRate(5e-4, "as QLoRA's"),
    "decoder": DefaultRate(2e-4, "as QLoRA's"),
}
AS_BITFIT: Mapping[ModelKind, DefaultRate] = {
    "small_encoder": DefaultRate(2e-3, "as BitFit's"),
    "encoder": DefaultRate(1e-3, "as BitFit's"),
}


def compared(rate: float) -> DefaultRate:
    """Return a decoder's rate that PEFT's method comparison sets for a method."""
    return DefaultRate(rate, COMPARISON)
