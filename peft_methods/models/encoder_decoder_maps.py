"""Where the layers of encoder-decoders end: what adapters need, in each of the two lists of layers.

A layer of the decoder has three parts. Adapters are put after its self-attention and its
feed-forward block and not after the attention to the encoder, as by default in the `adapters`
library. Models that are an encoder alone have the first list only.
"""

from __future__ import annotations

from dataclasses import replace

from peft_methods.models.layer_parts import LayerEnds

_T5 = (
    LayerEnds(layers="encoder.block", attention_end="layer.0.dropout", ffn_end="layer.1.dropout"),
    LayerEnds(layers="decoder.block", attention_end="layer.0.dropout", ffn_end="layer.2.dropout"),
)
_BART = tuple(
    LayerEnds(
        layers=layers,
        attention_end="self_attn.out_proj",
        ffn_end="fc2",
        attention_norm="self_attn_layer_norm",
        ffn_norm="final_layer_norm",
    )
    for layers in ("encoder.layers", "decoder.layers")
)
# mBART normalises before each part of a layer.
_MBART = tuple(replace(one, attention_norm="", ffn_norm="") for one in _BART)
ENCODER_DECODER_ENDS = {
    "t5": _T5,
    "mt5": _T5,
    "bart": _BART,
    "plbart": _BART,
    "mbart": _MBART,
}
