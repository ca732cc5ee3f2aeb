"""Which models are decoded with slots, and why others are not."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from peft_methods.models import ranks

if TYPE_CHECKING:
    from torch import nn

# Their frequencies depend on the longest row of a batch, so rows would depend on each other.
ROPES_OF_BATCHES = ("dynamic", "longrope")


def plain_model(model: Any) -> Any:
    """Return the transformers model inside PEFT's."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


def text_config(model: nn.Module) -> Any:
    """Return the config of a model's decoder."""
    return plain_model(model).config.get_text_config(decoder=True)


def refusal(model: Any) -> str:
    """Return why a model cannot be decoded with slots, or ''."""
    if ranks.is_sharded(model):
        return "weights divided among GPUs"
    if _has_prompt(model):
        return "trained prompts, which are in the cache"
    config = text_config(model)
    return (
        _special_model(plain_model(model)) or _special_positions(config) or _special_cache(config)
    )


def _has_prompt(model: Any) -> bool:
    """Whether trained virtual tokens are in the model: PEFT's, or those of our methods."""
    config = getattr(model, "active_peft_config", None)
    return getattr(config, "is_prompt_learning", False) or any(
        getattr(module, "adds_tokens", False) for module in model.modules()
    )


def _special_model(model: Any) -> str:
    """Return a name for attention or inputs that are not the usual ones, or ''."""
    kind, attention = model.config.model_type, model.config._attn_implementation
    if not getattr(model, "_supports_attention_backend", False):
        return f"{kind} has an attention of its own"
    if model.config.get_text_config(decoder=True) is not model.config:
        return f"{kind} has more parts than its decoder"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{kind} takes no positions"
    return "" if attention == "sdpa" else f"attention computed by {attention!r}"


def _special_positions(config: Any) -> str:
    """Return a name for positions that depend on other rows, or ''."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type") if isinstance(rope, dict) else None
    return f"{kind} rotary positions" if kind in ROPES_OF_BATCHES else ""


def _special_cache(config: Any) -> str:
    """Return a name for a cache with other layers than full attention, or ''."""
    layers = DynamicCache(config=config).layers
    kinds = {type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}
    if len(layers) != config.num_hidden_layers:
        return f"{config.model_type} shares its cache between layers"
    return f"a cache with layers of the kind {', '.join(sorted(kinds))}" if kinds else ""
