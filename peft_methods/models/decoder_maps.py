"""Module maps of decoders. All but the 350M model of OPT normalise before each half of a layer."""

from __future__ import annotations

from dataclasses import replace

from peft_methods.models.layer_parts import ModuleMap

_LLAMA = ModuleMap(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    attention_end="self_attn.o_proj",
    ffn_input="mlp.up_proj",
    gate="mlp.gate_proj",
    ffn_output="mlp.down_proj",
    ffn_end="mlp.down_proj",
    gated=True,
)
# These normalise each half's output before it is added.
_GEMMA2 = replace(
    _LLAMA, attention_end="post_attention_layernorm", ffn_end="post_feedforward_layernorm"
)
_GPT2 = ModuleMap(
    layers="h",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    attention_output="attn.c_proj",
    attention_end="attn.resid_dropout",
    ffn_input="mlp.c_fc",
    ffn_output="mlp.c_proj",
    ffn_end="mlp.dropout",
)
_GPT_NEOX = ModuleMap(
    layers="layers",
    query="attention.query_key_value",
    key="attention.query_key_value",
    value="attention.query_key_value",
    attention_output="attention.dense",
    attention_end="post_attention_dropout",
    ffn_input="mlp.dense_h_to_4h",
    ffn_output="mlp.dense_4h_to_h",
    ffn_end="post_mlp_dropout",
)
_OPT = ModuleMap(
    layers="decoder.layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.out_proj",
    attention_end="self_attn.out_proj",
    ffn_input="fc1",
    ffn_output="fc2",
    ffn_end="fc2",
)
_PHI = ModuleMap(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.dense",
    attention_end="self_attn.dense",
    ffn_input="mlp.fc1",
    ffn_output="mlp.fc2",
    ffn_end="mlp.fc2",
)
_PHI3 = ModuleMap(
    layers="layers",
    query="self_attn.qkv_proj",
    key="self_attn.qkv_proj",
    value="self_attn.qkv_proj",
    attention_output="self_attn.o_proj",
    attention_end="resid_attn_dropout",
    ffn_input="mlp.gate_up_proj",
    ffn_output="mlp.down_proj",
    ffn_end="resid_mlp_dropout",
    gated=True,
)
DECODER_MAPS = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "phi": _PHI,
    "phi3": _PHI3,
}
