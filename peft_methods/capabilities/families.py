"""The families of models in the capability matrix, and each one's main task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peft_methods.recipes.schema import DEFAULT_TASK
from peft_methods.utils.errors import OptionError, unknown

WRITING = "causal_lm"  # the main task of decoders


@dataclass(frozen=True)
class Family:
    """A model type of transformers (`model_type` in config.json), with its title in tables."""

    name: str
    title: str
    main_task: str = DEFAULT_TASK
    is_encoder: bool = True


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("bert", "BERT"),
        Family("roberta", "RoBERTa"),
        Family("distilbert", "DistilBERT"),
        Family("mpnet", "MPNet"),
        Family("deberta-v2", "DeBERTa v2 and v3"),
        Family("electra", "ELECTRA"),
        Family("albert", "ALBERT"),
        Family("modernbert", "ModernBERT"),
        Family("xlm-roberta", "XLM-R"),
        Family("llama", "Llama", WRITING, is_encoder=False),
        Family("qwen2", "Qwen2", WRITING, is_encoder=False),
        Family("qwen3", "Qwen3", WRITING, is_encoder=False),
        Family("gemma3_text", "Gemma 3", WRITING, is_encoder=False),
        Family("gpt2", "GPT-2", WRITING, is_encoder=False),
        Family("opt", "OPT", WRITING, is_encoder=False),
        Family("mistral", "Mistral", WRITING, is_encoder=False),
        Family("t5", "T5", is_encoder=False),
    )
}


def family_named(name: str) -> Family:
    """Return the family of this name. Raises `OptionError` with the nearest name."""
    if name not in FAMILIES:
        raise OptionError(unknown("family", name, FAMILIES))
    return FAMILIES[name]
