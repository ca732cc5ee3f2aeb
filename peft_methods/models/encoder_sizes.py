"""Sizes of encoders of the BERT family, computed from the config alone."""

from __future__ import annotations

from typing import Any

from peft_methods.models.layer_parts import ROLES, LinearLayer, ModelSizes, ModuleMap, size_in


def encoder_sizes(config: Any, parts: ModuleMap) -> ModelSizes:
    """Return the sizes of an encoder whose parts are known. All its linear layers have biases.

    Outside of layers and embeddings some types have more: MPNet's relative positions, ELECTRA's
    projection of the embeddings.
    """
    hidden, width = size_in(config, "hidden_size"), _embedding_width(config)
    inner = size_in(config, "intermediate_size") or size_in(config, "hidden_dim")
    dimensions = dict.fromkeys(ROLES[:4], (hidden, hidden)) | {
        "ffn_input": (hidden, inner),
        "ffn_output": (inner, hidden),
    }
    extra, extra_biases = _extras(config)
    return ModelSizes(
        tuple(
            LinearLayer(path, *dimensions[roles[0]], roles)
            for path, roles in parts.linear_layers().items()
        ),
        norms=4 * hidden,
        norm_biases=2 * hidden,
        outer=(_embedding_rows(config) + 2) * width + extra,
        outer_biases=width + extra_biases,
    )


def _embedding_width(config: Any) -> int:
    own = config.model_type in ("albert", "electra", "deberta-v2")
    return (size_in(config, "embedding_size") if own else 0) or size_in(config, "hidden_size")


def _embedding_rows(config: Any) -> int:
    kind, positions = config.model_type, size_in(config, "max_position_embeddings")
    if kind == "deberta-v2" and not getattr(config, "position_biased_input", True):
        positions = 0
    types = size_in(config, "type_vocab_size") if kind not in {"mpnet", "distilbert"} else 0
    return size_in(config, "vocab_size") + positions + types


def _extras(config: Any) -> tuple[int, int]:
    """Return the parameters outside layers, embeddings and pooler, and the biases in them."""
    kind, hidden = config.model_type, size_in(config, "hidden_size")
    width = _embedding_width(config)
    if kind == "mpnet":
        buckets = size_in(config, "relative_attention_num_buckets")
        return buckets * size_in(config, "num_attention_heads"), 0
    if kind == "albert" or (kind == "electra" and width != hidden):
        return width * hidden + hidden, hidden  # the projection of the embeddings
    if kind == "deberta-v2":
        return _deberta_v2_extras(config)
    return 0, 0


def _deberta_v2_extras(config: Any) -> tuple[int, int]:
    """Relative positions with their norm and projections, and the options of DeBERTa v2 XL.

    The norm of the embeddings is as wide as the layers.
    """
    h, width = config.hidden_size, _embedding_width(config)
    total, biases = 2 * (h - width) + width * h * (width != h), h - width
    if config.relative_attention:
        furthest = config.max_relative_positions
        furthest = config.max_position_embeddings if furthest < 1 else furthest
        buckets = getattr(config, "position_buckets", -1)
        total += 2 * (buckets if buckets > 0 else furthest) * h
        if not getattr(config, "share_att_key", False):
            maps = config.num_hidden_layers * sum(
                kind in (config.pos_att_type or ()) for kind in ("c2p", "p2c")
            )
            total, biases = total + maps * (h * h + h), biases + maps * h
    if "layer_norm" in getattr(config, "norm_rel_ebd", "none").lower():
        total, biases = total + 2 * h, biases + h
    if kernel := getattr(config, "conv_kernel_size", 0):
        groups = getattr(config, "conv_groups", 1)
        total, biases = total + h * h // groups * kernel + 3 * h, biases + 2 * h
    return total, biases
