"""Module maps: where the parts of the supported encoders and decoders are."""

from __future__ import annotations

from collections.abc import Iterable

from peft_methods.models.decoder_maps import DECODER_MAPS
from peft_methods.models.layer_parts import ROLES, ModuleMap
from peft_methods.utils.errors import OptionError, unknown

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
_MODERNBERT = ModuleMap(
    layers="layers",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    attention_output="attn.Wo",
    attention_end="attn.out_drop",
    ffn_input="mlp.Wi",
    ffn_output="mlp.Wo",
    ffn_end="mlp.Wo",
    gated=True,
)
ENCODER_MAPS = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "mpnet": _MPNET,
    "distilbert": _DISTILBERT,
    "deberta-v2": _DEBERTA_V2,
    "albert": _ALBERT,
    "modernbert": _MODERNBERT,
}
MODULE_MAPS = ENCODER_MAPS | DECODER_MAPS


def check_roles(targets: Iterable[str], where: str) -> None:
    """Raise `OptionError` for a target that is not the role of a module in a layer."""
    for target in targets:
        if target not in ROLES:
            raise OptionError(f"{where}: " + unknown("target", target, ROLES))
