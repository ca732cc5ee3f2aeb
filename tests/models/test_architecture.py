"""Sizes of encoders: closed forms and counted sizes equal what the model holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from builders import MORE_CONFIGS, RELATIVE, SIZES, TINY
from peft_methods.models.architecture import architecture_of
from peft_methods.models.linear_layers import count_model, roles_of
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.models.module_names import in_modules, is_bias, top_modules

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
}


def build(config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = transformers.AutoModelForSequenceClassification.from_config(config)
    return model


@pytest.mark.parametrize("name", [*VARIANTS, *sorted(set(MORE_CONFIGS) & set(MODULE_MAPS))])
def test_closed_forms_equal_the_sizes_of_the_model(name: str) -> None:
    config = VARIANTS[name] if name in VARIANTS else MORE_CONFIGS[name]()
    model = build(config)
    head = top_modules(model)
    encoder = {n: p for n, p in model.named_parameters() if not in_modules(n, head)}
    pooler = any(".pooler" in n for n in encoder)
    found = architecture_of(config, head_parameters=0, pooler=pooler)
    assert found.parameters == sum(p.numel() for p in encoder.values())
    assert found.biases == sum(p.numel() for n, p in encoder.items() if is_bias(n, p))


@pytest.mark.parametrize("kind", ["fnet", "modernbert", "deberta", "funnel", "longformer"])
def test_sizes_of_other_models_are_counted(kind: str) -> None:
    config = MORE_CONFIGS[kind]()
    model = build(config)
    counted = count_model(model, top_modules(model))
    found = architecture_of(config, head_parameters=0, pooler=False, counted=counted)
    encoder = sum(p.numel() for p in getattr(model, str(model.base_model_prefix)).parameters())
    assert found.parameters == encoder
    assert found.module_map is None
    assert architecture_of(config, head_parameters=0, pooler=False).parameters is None


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
