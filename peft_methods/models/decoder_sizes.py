"""Sizes of decoders and of ModernBERT, computed from the config alone.

Heads of keys and values may be fewer than those of queries, feed-forward blocks may be gated,
query, key and value may be one matrix, and most have no biases: the config decides.
"""

from __future__ import annotations

from typing import Any

from peft_methods.models.layer_parts import ROLES, LinearLayer, ModelSizes, ModuleMap, size_in

ATTENTION, FEED_FORWARD = ROLES[:4], ROLES[4:]
# Model types whose norms are LayerNorm, with biases. The others have RMSNorm, with weights alone.
LAYER_NORM = ("gpt2", "gpt_neox", "opt", "phi")
NORMS_OF_OUTPUTS = ("gemma2", "gemma3_text")  # two more norms a layer
NORMS_OF_HEADS = ("qwen3", "gemma3_text")  # norms of queries and keys, as wide as a head
OPT_OFFSET = 2  # OPT's table of positions has two rows before the first


def decoder_sizes(config: Any, parts: ModuleMap) -> ModelSizes:
    """Return the sizes of a decoder, or of ModernBERT, whose parts are known."""
    kind = config.model_type
    if kind == "opt":
        return _opt_sizes(config, parts)
    hidden, with_bias = size_in(config, "hidden_size"), kind in LAYER_NORM
    norm = hidden * (1 + with_bias)
    norms = (4 if kind in NORMS_OF_OUTPUTS else 1 if kind == "phi" else 2) * norm
    biases = with_bias * norms // 2
    if kind in NORMS_OF_HEADS or getattr(config, "qk_layernorm", False):
        own = 2 * _head_width(config) * (1 + with_bias)
        norms, biases = norms + own, biases + with_bias * own // 2
    outer, outer_biases = size_in(config, "vocab_size") * hidden + norm, with_bias * hidden
    if kind == "gpt2":
        positions = size_in(config, "max_position_embeddings") or size_in(config, "n_positions")
        outer += positions * hidden
    if kind == "modernbert":
        norm_bias = bool(getattr(config, "norm_bias", False)) * hidden
        norms, biases = norms + 2 * norm_bias, 2 * norm_bias
        # The embeddings have a norm, and the first layer has none before its attention.
        outer, outer_biases = outer + norm_bias, norm_bias
    return ModelSizes(_linear_layers(config, parts), norms, biases, outer, outer_biases)


def shares_keys(config: Any) -> bool:
    """Whether several heads of queries share keys and values (Ainslie et al. 2023, section 2.2)."""
    heads = size_in(config, "num_attention_heads")
    return size_in(config, "num_key_value_heads", heads) < heads


def _opt_sizes(config: Any, parts: ModuleMap) -> ModelSizes:
    """The embeddings of OPT may be narrower than its layers, and the last norm may be missing."""
    hidden = size_in(config, "hidden_size")
    width = size_in(config, "word_embed_proj_dim", hidden)
    positions = size_in(config, "max_position_embeddings") + OPT_OFFSET
    has_last = getattr(config, "do_layer_norm_before", True) and not getattr(
        config, "_remove_final_layer_norm", False
    )
    affine = bool(getattr(config, "layer_norm_elementwise_affine", True))
    outer = size_in(config, "vocab_size") * width + positions * hidden
    outer += 2 * width * hidden * (width != hidden) + 2 * hidden * has_last * affine
    return ModelSizes(
        _linear_layers(config, parts),
        4 * hidden * affine,
        2 * hidden * affine,
        outer,
        hidden * has_last * affine,
    )


def _linear_layers(config: Any, parts: ModuleMap) -> tuple[LinearLayer, ...]:
    hidden = size_in(config, "hidden_size")
    inner = size_in(config, "intermediate_size") or size_in(config, "ffn_dim")
    inner = inner or size_in(config, "n_inner") or 4 * hidden  # GPT-2's default
    heads = size_in(config, "num_attention_heads")
    width = _head_width(config)
    queries, keys = heads * width, size_in(config, "num_key_value_heads", heads) * width
    outputs = {
        "query": queries,
        "key": keys,
        "value": keys,
        "attention_output": hidden,
        "ffn_input": inner * (1 + (parts.gated and not parts.gate)),
        "ffn_output": hidden,
    }
    inputs = dict.fromkeys(ROLES, hidden) | {"attention_output": queries, "ffn_output": inner}
    biased = _roles_with_bias(config)
    return tuple(
        LinearLayer(path, inputs[roles[0]], sum(outputs[role] for role in roles), roles, has_bias)
        for path, roles in parts.linear_layers().items()
        for has_bias in [roles[0] in biased]
    )


def _head_width(config: Any) -> int:
    heads = size_in(config, "num_attention_heads")
    return size_in(config, "head_dim") or size_in(config, "hidden_size") // heads


def _roles_with_bias(config: Any) -> tuple[str, ...]:
    """Return the roles whose linear layers have a bias."""
    kind = config.model_type
    if kind in {"gpt2", "phi"} or (kind == "opt" and getattr(config, "enable_bias", True)):
        return ROLES
    if kind == "qwen2":
        return ROLES[:3]
    if kind in {"mistral", "phi3", "opt"}:
        return ()
    default = kind == "gpt_neox"
    attention = ATTENTION if getattr(config, "attention_bias", default) else ()
    mlp = FEED_FORWARD if default or getattr(config, "mlp_bias", False) else ()
    return (*attention, *mlp)


def projection_sizes(config: Any) -> tuple[int, int]:
    """Return the weights and biases of the projection to the vocabulary that are its own.

    Tied weights are those of the embeddings.
    """
    rows, width = size_in(config, "vocab_size"), size_in(config, "hidden_size")
    width = size_in(config, "word_embed_proj_dim", width) if config.model_type == "opt" else width
    is_tied = getattr(config, "tie_word_embeddings", False)
    return 0 if is_tied else rows * width, rows * (config.model_type == "phi")
