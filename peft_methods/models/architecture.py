"""Module maps and sizes of the supported encoders: the inputs of the closed-form counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peft_methods.utils.errors import OptionError, unknown

ROLES = ("query", "key", "value", "attention_output", "ffn_input", "ffn_output")


@dataclass(frozen=True)
class ModuleMap:
    """Module paths within one post-norm encoder layer.

    `layers` is the path of the layer list in the base model. `attention_end` and `ffn_end` are the
    modules whose output is added to the residual stream in each half of the layer. The sum is
    normalised by `attention_norm` and `ffn_norm`.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_end: str
    attention_norm: str
    ffn_input: str
    ffn_output: str
    ffn_end: str
    ffn_norm: str

    def pattern(self, roles: Iterable[str]) -> str:
        """Return a pattern that fully matches the modules of these roles in every layer."""
        paths = "|".join(getattr(self, role).replace(".", r"\.") for role in roles)
        return rf".*\.{self.layers.replace('.', chr(92) + '.')}\.\d+\.({paths})"


_BERT = ModuleMap(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_end="attention.output.dropout",
    attention_norm="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_end="output.dropout",
    ffn_norm="output.LayerNorm",
)
_MPNET = ModuleMap(
    layers="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_end="attention.dropout",
    attention_norm="attention.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_end="output.dropout",
    ffn_norm="output.LayerNorm",
)
_DISTILBERT = ModuleMap(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_end="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_input="ffn.lin1",
    ffn_output="ffn.lin2",
    ffn_end="ffn.dropout",
    ffn_norm="output_layer_norm",
)
MODULE_MAPS = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "mpnet": _MPNET,
    "distilbert": _DISTILBERT,
}


@dataclass(frozen=True)
class Architecture:
    """The sizes of a classifier that the closed-form counts need, from its config alone.

    `module_map` is None for a model type without one in `MODULE_MAPS`.
    `extra_parameters` are encoder parameters outside layers, embeddings and pooler (MPNet's
    relative positions).
    """

    model_type: str
    module_map: ModuleMap | None
    layers: int
    hidden: int
    intermediate: int
    embedding_rows: int
    pooler: bool
    extra_parameters: int
    head_parameters: int
    labels: int

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
            self.embedding_rows * h
            + 2 * h
            + self.layers * layer
            + self.pooler * (h * h + h)
            + self.extra_parameters
        )

    @property
    def encoder_biases(self) -> int:
        """The size of all bias vectors of the encoder, including those of its norms."""
        layer = sum(outputs for _, outputs in self.dimensions.values()) + 2 * self.hidden
        return self.hidden + self.layers * layer + self.pooler * self.hidden


def architecture_of(config: Any, *, head_parameters: int, pooler: bool) -> Architecture:
    """Return the architecture that a transformers config describes."""
    kind = config.model_type
    token_types = (
        getattr(config, "type_vocab_size", 0) if kind not in {"mpnet", "distilbert"} else 0
    )
    buckets = getattr(config, "relative_attention_num_buckets", 0) if kind == "mpnet" else 0
    return Architecture(
        model_type=kind,
        module_map=MODULE_MAPS.get(kind),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=int(
            getattr(config, "intermediate_size", 0) or getattr(config, "hidden_dim", 0)
        ),
        embedding_rows=config.vocab_size
        + getattr(config, "max_position_embeddings", 0)
        + token_types,
        pooler=pooler,
        extra_parameters=buckets * config.num_attention_heads,
        head_parameters=head_parameters,
        labels=config.num_labels,
    )


def check_roles(targets: Iterable[str], where: str) -> None:
    """Raise `OptionError` for a target that is not the role of a module in a layer."""
    for target in targets:
        if target not in ROLES:
            raise OptionError(f"{where}: " + unknown("target", target, ROLES))
