"""Module maps: where the parts of the supported encoders are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from peft_methods.utils.errors import OptionError, unknown

ROLES = ("query", "key", "value", "attention_output", "ffn_input", "ffn_output")


@dataclass(frozen=True)
class ModuleMap:
    """Module paths within one post-norm encoder layer.

    `layers` is the path of the layer list in the base model; `*` stands for any number where the
    lists are elements of another list. `attention_end` and `ffn_end` are the modules whose output
    is added to the residual stream in each half of the layer. The sum is normalised by
    `attention_norm` and `ffn_norm`.
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
        return rf".*\.{self.layers_pattern()}\.\d+\.({paths})"

    def layers_pattern(self) -> str:
        """Return a pattern that fully matches the path of each layer list in the base model."""
        return re.escape(self.layers).replace(r"\*", r"\d+")


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
_DEBERTA_V2 = ModuleMap(
    layers="encoder.layer",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    attention_output="attention.output.dense",
    attention_end="attention.output.dropout",
    attention_norm="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_end="output.dropout",
    ffn_norm="output.LayerNorm",
)
_ALBERT = ModuleMap(
    layers="encoder.albert_layer_groups.*.albert_layers",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attention_output="attention.dense",
    attention_end="attention.output_dropout",
    attention_norm="attention.LayerNorm",
    ffn_input="ffn",
    ffn_output="ffn_output",
    ffn_end="ffn_output",
    ffn_norm="full_layer_layer_norm",
)
MODULE_MAPS = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "mpnet": _MPNET,
    "distilbert": _DISTILBERT,
    "deberta-v2": _DEBERTA_V2,
    "albert": _ALBERT,
}


def check_roles(targets: Iterable[str], where: str) -> None:
    """Raise `OptionError` for a target that is not the role of a module in a layer."""
    for target in targets:
        if target not in ROLES:
            raise OptionError(f"{where}: " + unknown("target", target, ROLES))
