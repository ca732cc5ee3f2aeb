"""Sizes of encoders: closed forms and counted sizes equal what the model holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from builders import (
    DECODER,
    DECODER_ENDS,
    DECODERS,
    ENDS,
    MORE_CONFIGS,
    RELATIVE,
    SEQ2SEQ,
    SIZES,
    TINY,
)
from peft_methods.models.architecture import architecture_of
from peft_methods.models.layer_parts import ROLES
from peft_methods.models.linear_layers import count_model, roles_of
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.models.module_names import in_modules, is_bias, top_modules

EVERY = {**MORE_CONFIGS, **DECODERS}
OPT = {**TINY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
V2 = {**TINY, **SIZES, **RELATIVE}
VARIANTS: dict[str, Any] = {
    "electra, width of the layers": transformers.ElectraConfig(**TINY, **SIZES, embedding_size=32),
    "albert, two groups": transformers.AlbertConfig(
        **TINY, **SIZES, embedding_size=16, num_hidden_groups=2, inner_group_num=2
    ),
    "deberta-v2, defaults": transformers.DebertaV2Config(**TINY, **SIZES),
    "deberta-v2, own projections": transformers.DebertaV2Config(**V2, type_vocab_size=2),
    "deberta-v2, c2p": transformers.DebertaV2Config(**{**V2, "pos_att_type": ["c2p"]}),
    "deberta-v2, xlarge": transformers.DebertaV2Config(
        **V2, share_att_key=True, conv_kernel_size=3, conv_groups=2, norm_rel_ebd="layer_norm"
    ),
    "deberta-v2, narrow": transformers.DebertaV2Config(**V2, embedding_size=16),
    "llama, biases and wide heads": transformers.LlamaConfig(
        **DECODER, attention_bias=True, mlp_bias=True, head_dim=24
    ),
    "qwen3, biases": transformers.Qwen3Config(**DECODER, attention_bias=True),
    "phi, norms of heads": transformers.PhiConfig(**DECODER, qk_layernorm=True),
    "gpt2, default width": transformers.GPT2Config(
        **TINY, n_embd=32, n_layer=2, n_head=2, n_positions=64, **DECODER_ENDS
    ),
    "gpt_neox, no biases": transformers.GPTNeoXConfig(
        **TINY, **SIZES, **DECODER_ENDS, attention_bias=False
    ),
    "opt, narrow": transformers.OPTConfig(**OPT, word_embed_proj_dim=16, **DECODER_ENDS),
    "opt, post-norm": transformers.OPTConfig(
        **OPT, word_embed_proj_dim=32, do_layer_norm_before=False, **DECODER_ENDS
    ),
    "opt, no biases": transformers.OPTConfig(
        **OPT, enable_bias=False, layer_norm_elementwise_affine=False, **DECODER_ENDS
    ),
    "modernbert, biases": transformers.ModernBertConfig(
        **TINY, **SIZES, **ENDS, norm_bias=True, mlp_bias=True, attention_bias=True
    ),
}


def build(config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = transformers.AutoModelForSequenceClassification.from_config(config)
    return model


@pytest.mark.parametrize("name", [*VARIANTS, *sorted(set(EVERY) & set(MODULE_MAPS))])
def test_closed_forms_equal_the_sizes_of_the_model(name: str) -> None:
    config = VARIANTS[name] if name in VARIANTS else EVERY[name]()
    model = build(config)
    head = top_modules(model)
    encoder = {n: p for n, p in model.named_parameters() if not in_modules(n, head)}
    pooler = any(".pooler" in n for n in encoder)
    found = architecture_of(config, head_parameters=0, pooler=pooler)
    assert found.parameters == sum(p.numel() for p in encoder.values())
    assert found.biases == sum(p.numel() for n, p in encoder.items() if is_bias(n, p))


@pytest.mark.parametrize("kind", ["fnet", "deberta", "funnel", "longformer"])
def test_sizes_of_other_models_are_counted(kind: str) -> None:
    config = MORE_CONFIGS[kind]()
    model = build(config)
    counted = count_model(model, top_modules(model))
    found = architecture_of(config, head_parameters=0, pooler=False, counted=counted)
    encoder = sum(p.numel() for p in getattr(model, str(model.base_model_prefix)).parameters())
    assert found.parameters == encoder
    assert found.module_map is None
    assert architecture_of(config, head_parameters=0, pooler=False).parameters is None


@pytest.mark.parametrize("name", [*EVERY, *SEQ2SEQ])
def test_layers_of_each_role_are_found_by_map_and_by_name(name: str) -> None:
    config = {**EVERY, **SEQ2SEQ}[name]()
    model = build(config)
    counted = count_model(model, top_modules(model))
    found = architecture_of(config, head_parameters=0, pooler=False, counted=counted)
    for role in ROLES:
        by_name = sorted((one.inputs, one.outputs) for one in counted.in_roles((role,)))
        assert sorted(found.linear_sizes((role,))) == by_name
        assert len(by_name) >= 2 or name in {"fnet", "albert"}


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("model.layers.0.attn.Wqkv", ("query", "key", "value")),
        ("model.layers.0.attn.Wo", ("attention_output",)),
        ("model.layers.0.mlp.Wo", ("ffn_output",)),
        ("bert.encoder.layer.1.attention.output.dense", ("attention_output",)),
        ("bert.encoder.layer.1.output.dense", ("ffn_output",)),
        ("bert.encoder.layer.1.intermediate.dense", ("ffn_input",)),
        ("model.layers.3.self_attn.q_proj", ("query",)),
        ("model.layers.3.self_attn.o_proj", ("attention_output",)),
        ("model.layers.3.mlp.down_proj", ("ffn_output",)),
        ("transformer.attentions.2.v_lin", ("value",)),
        ("transformer.h.0.attn.c_attn", ("query", "key", "value")),
        ("transformer.h.0.attn.c_proj", ("attention_output",)),
        ("transformer.h.0.mlp.c_fc", ("ffn_input",)),
        ("transformer.h.0.mlp.c_proj", ("ffn_output",)),
        ("transformer.decoder.block.1.layer.1.EncDecAttention.v", ("value",)),
        ("transformer.encoder.block.0.layer.1.DenseReluDense.wi_1", ("ffn_input",)),
        ("transformer.encoder.block.0.layer.1.DenseReluDense.wo", ("ffn_output",)),
        ("bert.pooler.dense", ()),  # outside the layers
        ("classifier.out_proj", ()),
        ("deberta.encoder.layer.0.attention.self.pos_proj", ()),
    ],
)
def test_role_of_a_linear_layer_follows_from_its_name(name: str, roles: tuple[str, ...]) -> None:
    assert roles_of(name) == roles


def test_pattern_of_counted_layers_matches_these_layers_and_no_others() -> None:
    import re

    model = build(MORE_CONFIGS["modernbert"]())
    counted = count_model(model, top_modules(model))
    pattern = counted.pattern(("query", "ffn_output"))
    matched = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    assert matched == [
        *("model.layers.0.attn.Wqkv", "model.layers.0.mlp.Wo"),
        *("model.layers.1.attn.Wqkv", "model.layers.1.mlp.Wo"),
    ]
