"""Sizes of the supported encoders: the inputs of the counts that methods promise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peft_methods.models.linear_layers import CountedModel
from peft_methods.models.module_maps import MODULE_MAPS, ROLES, ModuleMap


@dataclass(frozen=True)
class Architecture:
    """The sizes of a classifier: those of its config, and for unknown model types counted ones.

    `module_map` is None for a model type without one in `MODULE_MAPS`. Closed forms hold for the
    others alone; `counted` has the sizes of the rest, and `layers`, `hidden` and `intermediate`
    are 0 where the config does not have them.
    `layers` are passed one after the other; `distinct_layers` have weights of their own (ALBERT's
    layers share theirs). `embedding` is the width of the embeddings.
    `extra_parameters` are encoder parameters outside layers, embeddings and pooler (MPNet's
    relative positions, ELECTRA's projection of the embeddings), `extra_biases` the biases in them.
    """

    model_type: str
    module_map: ModuleMap | None
    layers: int
    distinct_layers: int
    hidden: int
    intermediate: int
    embedding: int
    embedding_rows: int
    pooler: bool
    extra_parameters: int
    extra_biases: int
    head_parameters: int
    labels: int
    counted: CountedModel | None = None

    @property
    def parts(self) -> ModuleMap:
        """The module map, for methods that need one: `Method.unsupported` refuses other models."""
        assert self.module_map is not None, f"{self.model_type} has no module map"
        return self.module_map

    @property
    def dimensions(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layer in each role."""
        square, h, i = (self.hidden, self.hidden), self.hidden, self.intermediate
        return dict.fromkeys(ROLES[:4], square) | {"ffn_input": (h, i), "ffn_output": (i, h)}

    @property
    def encoder_parameters(self) -> int:
        """The number of all parameters outside the head: embeddings, layers, pooler."""
        h = self.hidden
        layer = (
            sum(inputs * outputs + outputs for inputs, outputs in self.dimensions.values()) + 4 * h
        )
        return (
            (self.embedding_rows + 2) * self.embedding
            + self.distinct_layers * layer
            + self.pooler * (h * h + h)
            + self.extra_parameters
        )

    @property
    def encoder_biases(self) -> int:
        """The size of all bias vectors of the encoder, including those of its norms."""
        layer = sum(outputs for _, outputs in self.dimensions.values()) + 2 * self.hidden
        return (
            self.embedding
            + self.distinct_layers * layer
            + self.pooler * self.hidden
            + self.extra_biases
        )

    @property
    def parameters(self) -> int | None:
        """The encoder's parameters: in closed form, else counted, else None."""
        if self.module_map is not None:
            return self.encoder_parameters
        return self.counted.parameters if self.counted else None

    @property
    def biases(self) -> int | None:
        """The size of the encoder's biases: in closed form, else counted, else None."""
        if self.module_map is not None:
            return self.encoder_biases
        return self.counted.biases if self.counted else None

    def linear_sizes(self, roles: Iterable[str]) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of every linear layer in these roles."""
        if self.module_map is None:
            found = self.counted.in_roles(roles) if self.counted else ()
            return tuple((layer.inputs, layer.outputs) for layer in found)
        return tuple(self.dimensions[role] for role in dict.fromkeys(roles)) * self.distinct_layers

    def pattern(self, roles: Iterable[str]) -> str:
        """Return a pattern that fully matches the modules of these roles in every layer."""
        if self.module_map is None:
            assert self.counted is not None, f"{self.model_type} has no module map"
            return self.counted.pattern(roles)
        return self.module_map.pattern(roles)

    def known_roles(self) -> tuple[str, ...]:
        """Return the roles for which this model has linear layers."""
        return tuple(role for role in ROLES if self.linear_sizes((role,)))


def architecture_of(
    config: Any, *, head_parameters: int, pooler: bool, counted: CountedModel | None = None
) -> Architecture:
    """Return the architecture that a transformers config describes."""
    kind, depth = config.model_type, _size(config, "num_hidden_layers")
    inner = _size(config, "inner_group_num") if kind == "albert" else 1
    groups = _size(config, "num_hidden_groups") if kind == "albert" else depth
    hidden = _size(config, "hidden_size")
    extra, extra_biases = _extras(config)
    return Architecture(
        model_type=kind,
        module_map=MODULE_MAPS.get(kind),
        layers=depth * inner,
        distinct_layers=groups * inner,
        hidden=hidden,
        intermediate=_size(config, "intermediate_size") or _size(config, "hidden_dim"),
        embedding=_embedding_width(config),
        embedding_rows=_embedding_rows(config),
        pooler=pooler,
        extra_parameters=extra,
        extra_biases=extra_biases,
        head_parameters=head_parameters,
        labels=config.num_labels,
        counted=counted,
    )


def _size(config: Any, name: str) -> int:
    """Return a size from a config, 0 where it has none: model types differ in their fields."""
    value = getattr(config, name, 0)
    return value if isinstance(value, int) else 0


def _embedding_width(config: Any) -> int:
    own = config.model_type in ("albert", "electra", "deberta-v2")
    return (_size(config, "embedding_size") if own else 0) or _size(config, "hidden_size")


def _embedding_rows(config: Any) -> int:
    kind, positions = config.model_type, _size(config, "max_position_embeddings")
    if kind == "deberta-v2" and not getattr(config, "position_biased_input", True):
        positions = 0
    types = _size(config, "type_vocab_size") if kind not in {"mpnet", "distilbert"} else 0
    return _size(config, "vocab_size") + positions + types


def _extras(config: Any) -> tuple[int, int]:
    """Return the parameters outside layers, embeddings and pooler, and the biases in them."""
    kind, hidden = config.model_type, _size(config, "hidden_size")
    width = _embedding_width(config)
    if kind == "mpnet":
        buckets = _size(config, "relative_attention_num_buckets")
        return buckets * _size(config, "num_attention_heads"), 0
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
