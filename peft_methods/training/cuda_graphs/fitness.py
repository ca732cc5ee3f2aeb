"""Models that the cuda_graphs engine cannot train, as far as their config tells."""

from __future__ import annotations

from typing import Any

from peft_methods.models.families import TITLES, family_of

# Rotations of positions that are computed from the longest position of each batch, on the host.
ROTATIONS = ("dynamic", "longrope")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # settings with their number


def model_problem(config: Any) -> str | None:
    """Return why the steps of such a model cannot be captured, or None.

    The sentence goes on after "the engine captures the steps of encoders and decoders, and".
    """
    kind = f"{config.model_type!r}"
    if (family := family_of(config)) == "encoder":
        return None
    if family != "decoder":
        return f"{kind} is {TITLES[family]}"
    text = config.get_text_config()
    if found := _rotations(getattr(text, "rope_parameters", None)) & set(ROTATIONS):
        return f"{kind} computes {min(found)!r} rotations of positions on the host"
    if any((getattr(text, name, None) or 0) > 1 for name in EXPERTS):
        return f"{kind} chooses among experts on the host"
    if not _has_exchangeable_attention(config):
        return f"{kind} has its attention built in, which sees all tokens of a row"
    return None


def _rotations(parameters: Any) -> set[str]:
    """Return the kinds of rotations; there may be one for each kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    if "rope_type" in parameters:
        return {str(parameters["rope_type"])}
    return set().union(*(_rotations(own) for own in parameters.values()))


def _has_exchangeable_attention(config: Any) -> bool:
    """Whether the model's class takes another attention; true for code that is not known."""
    from transformers import AutoModel

    known: Any = AutoModel._model_mapping  # transformers 5.17 has no public look-up
    if type(config) not in known:
        return True
    return bool(getattr(known[type(config)], "_supports_attention_backend", False))
