"""Families of models: encoders, decoders, and encoder-decoders."""

from __future__ import annotations

import re
from typing import Any, Literal

from peft_methods.models.decoder_maps import DECODER_MAPS

Family = Literal["encoder", "decoder", "encoder_decoder"]
TITLES: dict[Family, str] = {
    "encoder": "an encoder",
    "decoder": "a decoder",
    "encoder_decoder": "an encoder-decoder",
}
# Model types of decoders without a module map, for defaults that must not import transformers.
MORE_DECODERS = (
    *("bloom", "falcon", "gpt_bigcode", "gpt_neo", "gptj", "mpt", "olmo", "olmo2", "stablelm"),
    *("gemma3", "mixtral", "ministral", "starcoder2", "glm", "glm4", "qwen2_moe", "qwen3_moe"),
)
DECODER_TYPES = frozenset({*DECODER_MAPS, *MORE_DECODERS})
# Parts of hub names that decoders alone have.
DECODER_NAMES = re.compile(
    r"(^|[-_.])(code)?(llama|qwen|gemma|smollm|mi[sx]tral|ministral|phi|gpt2|gpt-neo|gpt-j|opt|"
    r"pythia|bloomz?|falcon|mpt|olmo|stablelm|starcoder|tinyllama)(?=$|[-_.\d])"
)
NOT_DECODERS = re.compile(r"embed|t5gemma|llama-?vision|colqwen")


def family_of(config: Any) -> Family:
    """Return the family of a model by its transformers config."""
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    if config.is_encoder_decoder:
        return "encoder_decoder"
    if kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "decoder" if causal else "encoder"


def is_named_like_a_decoder(name: str) -> bool:
    """Whether a hub name, without its owner, is one that decoders have."""
    lower = name.casefold()
    return bool(DECODER_NAMES.search(lower)) and not NOT_DECODERS.search(lower)
