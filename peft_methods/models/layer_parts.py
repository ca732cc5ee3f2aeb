"""The parts of a layer: the roles of its linear layers, and where they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ROLES = ("query", "key", "value", "attention_output", "ffn_input", "ffn_output")


@dataclass(frozen=True, kw_only=True)
class LayerEnds:
    """The ends of self-attention and feed-forward block in each layer of a list.

    `layers` is the path of the layer list in the base model; `*` stands for any number where the
    lists are elements of another list. `attention_end` and `ffn_end` are the modules whose output
    is added to the residual stream, as paths in a layer. In a post-norm layer the sum is normalised
    by `attention_norm` and `ffn_norm`; they are empty for a pre-norm layer, whose sums have no
    norm.
    """

    layers: str
    attention_end: str
    ffn_end: str
    attention_norm: str = ""
    ffn_norm: str = ""

    def layers_pattern(self) -> str:
        """Return a pattern that fully matches the path of each layer list in the base model."""
        return re.escape(self.layers).replace(r"\*", r"\d+")


@dataclass(frozen=True, kw_only=True)
class ModuleMap(LayerEnds):
    """Module paths within one layer.

    A linear layer may have several roles: one matrix for query, key and value. `gate` is the second
    input layer of a gated feed-forward block, `gated` that one layer computes both halves.
    """

    query: str
    key: str
    value: str
    attention_output: str
    ffn_input: str
    ffn_output: str
    gate: str = ""
    gated: bool = False

    def paths(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return the paths of the linear layers with at least one of these roles, each once."""
        wanted = set(roles)
        return tuple(path for path, own in self.linear_layers().items() if wanted & set(own))

    def linear_layers(self) -> dict[str, tuple[str, ...]]:
        """Return the roles of each linear layer of a layer, by its path."""
        found: dict[str, tuple[str, ...]] = {}
        for role in ROLES:
            path = getattr(self, role)
            found[path] = (*found.get(path, ()), role)
        return found | ({self.gate: ("ffn_input",)} if self.gate else {})

    def pattern(self, roles: Iterable[str]) -> str:
        """Return a pattern that fully matches the modules of these roles in every layer."""
        paths = "|".join(path.replace(".", r"\.") for path in self.paths(roles))
        return rf".*\.{self.layers_pattern()}\.\d+\.({paths})"


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer. A matrix for query, key and value has three roles."""

    name: str
    inputs: int
    outputs: int
    roles: tuple[str, ...]
    has_bias: bool = True

    @property
    def parameters(self) -> int:
        """The weights and biases."""
        return (self.inputs + self.has_bias) * self.outputs

    @property
    def biases(self) -> int:
        """The biases."""
        return self.has_bias * self.outputs


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of weights and of biases among them, of a layer and outside all layers.

    `linear` has the linear layers of one layer. `norms` and `norm_biases` are those of its norms,
    `outer` and `outer_biases` those of embeddings, last norm and the like. The head and a pooler
    before it are not counted.
    """

    linear: tuple[LinearLayer, ...] = ()
    norms: int = 0
    norm_biases: int = 0
    outer: int = 0
    outer_biases: int = 0

    @property
    def layer(self) -> int:
        """The weights and biases of one layer."""
        return sum(one.parameters for one in self.linear) + self.norms

    @property
    def layer_biases(self) -> int:
        """The biases of one layer."""
        return sum(one.biases for one in self.linear) + self.norm_biases


def size_in(config: Any, name: str, default: int = 0) -> int:
    """Return a size from a config, the default where it has none: model types differ in fields."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) else default
