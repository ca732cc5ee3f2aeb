"""Sizes of the supported models: the inputs of the counts that methods promise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from peft_methods.models.decoder_maps import DECODER_MAPS
from peft_methods.models.decoder_sizes import decoder_sizes, projection_sizes
from peft_methods.models.encoder_decoder_maps import ENCODER_DECODER_ENDS
from peft_methods.models.encoder_sizes import encoder_sizes
from peft_methods.models.layer_parts import (
    ROLES,
    LayerEnds,
    LinearLayer,
    ModelSizes,
    ModuleMap,
    size_in,
)
from peft_methods.models.linear_layers import CountedModel
from peft_methods.models.module_maps import MODULE_MAPS


@dataclass(frozen=True)
class Architecture:
    """The sizes of a model with a head: those of its config, and counted ones for unknown types.

    `module_map` is None for a model type without one in `MODULE_MAPS`. Closed forms, in `sizes`,
    hold for the others alone; `counted` has the sizes of the rest, and `layers` and `hidden` are 0
    where the config does not have them.
    `layers` are passed one after the other; `distinct_layers` have weights of their own (ALBERT's
    layers share theirs). Embeddings of tokens are `embedding_width` wide.
    """

    model_type: str
    module_map: ModuleMap | None
    layers: int
    distinct_layers: int
    hidden: int
    pooler: bool
    head_parameters: int
    labels: int
    sizes: ModelSizes = field(default_factory=ModelSizes)
    counted: CountedModel | None = None
    embedding_width: int = 0

    @property
    def parts(self) -> ModuleMap:
        """The module map, for methods that need one: `Method.unsupported` refuses other models."""
        assert self.module_map is not None, f"{self.model_type} has no module map"
        return self.module_map

    @property
    def ends(self) -> tuple[LayerEnds, ...]:
        """Where the layers end, for each list of them; empty for a type whose ends are unknown."""
        known = ENCODER_DECODER_ENDS.get(self.model_type, ())
        return known if self.module_map is None else (self.module_map,)

    @property
    def adapted_layers(self) -> int:
        """The number of layers with known ends that have weights of their own."""
        if self.module_map is not None:
            return self.distinct_layers
        lists = "|".join(one.layers_pattern() for one in self.ends)
        names = (one.name for one in self.counted.linear_layers) if self.counted else ()
        layers = (re.search(rf"(^|\.)({lists})\.\d+(?=\.)", name) for name in names)
        return len({found.group() for found in layers if found})

    @property
    def linear_layers(self) -> tuple[LinearLayer, ...]:
        """The linear layers of one layer; their names are paths in it. Empty if unknown."""
        return self.sizes.linear

    @property
    def encoder_parameters(self) -> int:
        """The number of all parameters outside the head: embeddings, layers, pooler."""
        h = self.hidden
        layers = self.distinct_layers * self.sizes.layer
        return self.sizes.outer + layers + self.pooler * (h * h + h)

    @property
    def encoder_biases(self) -> int:
        """The size of all bias vectors outside the head, including those of norms."""
        layers = self.distinct_layers * self.sizes.layer_biases
        return self.sizes.outer_biases + layers + self.pooler * self.hidden

    @property
    def parameters(self) -> int | None:
        """The parameters outside the head: in closed form, else counted, else None."""
        if self.module_map is not None:
            return self.encoder_parameters
        return self.counted.parameters if self.counted else None

    @property
    def biases(self) -> int | None:
        """The size of the biases outside the head: in closed form, else counted, else None."""
        if self.module_map is not None:
            return self.encoder_biases
        return self.counted.biases if self.counted else None

    @property
    def norm_parameters(self) -> int | None:
        """The weights and biases of the norms in all layers; None without a closed form."""
        if self.module_map is None:
            return None
        missing = self.hidden * (self.model_type == "modernbert")  # its first layer has one less
        return self.distinct_layers * self.sizes.norms - missing

    def linear_in_roles(self, roles: Iterable[str]) -> tuple[LinearLayer, ...]:
        """Return every linear layer with at least one of these roles."""
        wanted = set(roles)
        if self.module_map is None:
            return self.counted.in_roles(wanted) if self.counted else ()
        own = tuple(layer for layer in self.linear_layers if wanted & set(layer.roles))
        return own * self.distinct_layers

    def linear_sizes(self, roles: Iterable[str]) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of every linear layer with at least one of these roles."""
        return tuple((layer.inputs, layer.outputs) for layer in self.linear_in_roles(roles))

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
    config: Any,
    *,
    head_parameters: int,
    pooler: bool,
    counted: CountedModel | None = None,
    writes: bool = False,
) -> Architecture:
    """Return the architecture that a transformers config describes.

    With `writes`, the model's own projection to the vocabulary is a part of it.
    """
    kind, depth = config.model_type, size_in(config, "num_hidden_layers")
    inner = size_in(config, "inner_group_num") if kind == "albert" else 1
    groups = size_in(config, "num_hidden_groups") if kind == "albert" else depth
    parts = MODULE_MAPS.get(kind)
    return Architecture(
        model_type=kind,
        module_map=parts,
        layers=depth * inner,
        distinct_layers=groups * inner,
        hidden=size_in(config, "hidden_size"),
        pooler=pooler,
        head_parameters=head_parameters,
        labels=config.num_labels,
        sizes=ModelSizes() if parts is None else _sizes(config, parts, writes),
        counted=counted,
        embedding_width=_embedding_width(config),
    )


def _embedding_width(config: Any) -> int:
    """Return the width of the embeddings of tokens, which a map may bring to that of the layers."""
    own = {"opt": "word_embed_proj_dim", "albert": "embedding_size", "electra": "embedding_size"}
    name = own.get(config.model_type, "embedding_size" if "deberta" in config.model_type else "")
    return size_in(config, name) or size_in(config, "hidden_size")


def _sizes(config: Any, parts: ModuleMap, writes: bool) -> ModelSizes:
    like_a_decoder = config.model_type in DECODER_MAPS or config.model_type == "modernbert"
    sizes = decoder_sizes(config, parts) if like_a_decoder else encoder_sizes(config, parts)
    if not writes:
        return sizes
    weights, biases = projection_sizes(config)
    return replace(
        sizes, outer=sizes.outer + weights + biases, outer_biases=sizes.outer_biases + biases
    )
