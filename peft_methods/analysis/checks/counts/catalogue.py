"""Sizes of published models: config fields by name, beside the architecture presets.

Sources: the configs that the models' makers published. Tests build each model type from these
fields with transformers and compare the numbers of parameters, and the totals with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from peft_methods.models.presets import presets, shape_names

# Fields by column. Rows of a table have a name before them.
ENCODER = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size"
DECODER = f"{ENCODER} num_key_value_heads"
Row = tuple[Any, ...]

ENCODERS: dict[str, tuple[str, dict[str, Any], tuple[Row, ...]]] = {
    "bert": (
        ENCODER,
        {"max_position_embeddings": 512, "type_vocab_size": 2},
        (
            ("bert-base-cased", 28996, 768, 12, 12, 3072),
            ("bert-large-cased", 28996, 1024, 24, 16, 4096),
            ("bert-base-multilingual-cased", 119547, 768, 12, 12, 3072),
            ("bert-base-multilingual-uncased", 105879, 768, 12, 12, 3072),
            ("bert-base-chinese", 21128, 768, 12, 12, 3072),
            ("bert-tiny", 30522, 128, 2, 2, 512),
            ("bert-mini", 30522, 256, 4, 4, 1024),
            ("bert-small", 30522, 512, 4, 8, 2048),
            ("bert-medium", 30522, 512, 8, 8, 2048),
            ("MiniLM-L6-H384-uncased", 30522, 384, 6, 12, 1536),
            ("MiniLM-L12-H384-uncased", 30522, 384, 12, 12, 1536),
        ),
    ),
    "distilbert": (
        "vocab_size dim n_layers n_heads hidden_dim",
        {"max_position_embeddings": 512},
        (
            ("distilbert-base-cased", 28996, 768, 6, 12, 3072),
            ("distilbert-base-multilingual-cased", 119547, 768, 6, 12, 3072),
        ),
    ),
    "roberta": (
        ENCODER,
        {"max_position_embeddings": 514, "type_vocab_size": 1},
        (("distilroberta-base", 50265, 768, 6, 12, 3072),),
    ),
    "xlm-roberta": (
        ENCODER,
        {"max_position_embeddings": 514, "type_vocab_size": 1},
        (
            ("xlm-roberta-base", 250002, 768, 12, 12, 3072),
            ("xlm-roberta-large", 250002, 1024, 24, 16, 4096),
        ),
    ),
    "camembert": (
        ENCODER,
        {"max_position_embeddings": 514, "type_vocab_size": 1},
        (
            ("camembert-base", 32005, 768, 12, 12, 3072),
            ("camembert-large", 32005, 1024, 24, 16, 4096),
        ),
    ),
    "electra": (
        f"{ENCODER} embedding_size",
        {"max_position_embeddings": 512, "type_vocab_size": 2},
        (
            ("electra-small-discriminator", 30522, 256, 12, 4, 1024, 128),
            ("electra-base-discriminator", 30522, 768, 12, 12, 3072, 768),
            ("electra-large-discriminator", 30522, 1024, 24, 16, 4096, 1024),
        ),
    ),
    "albert": (
        ENCODER,
        {"max_position_embeddings": 512, "type_vocab_size": 2, "embedding_size": 128}
        | {"num_hidden_groups": 1, "inner_group_num": 1},
        (
            ("albert-base-v2", 30000, 768, 12, 12, 3072),
            ("albert-large-v2", 30000, 1024, 24, 16, 4096),
            ("albert-xlarge-v2", 30000, 2048, 24, 16, 8192),
            ("albert-xxlarge-v2", 30000, 4096, 12, 64, 16384),
        ),
    ),
    "deberta": (
        ENCODER,
        {"max_position_embeddings": 512, "type_vocab_size": 0, "position_biased_input": False}
        | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pad_token_id": 0},
        (
            ("deberta-base", 50265, 768, 12, 12, 3072),
            ("deberta-large", 50265, 1024, 24, 16, 4096),
        ),
    ),
    "deberta-v2": (
        f"{ENCODER} conv_kernel_size",
        {"max_position_embeddings": 512, "type_vocab_size": 0, "position_biased_input": False}
        | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pad_token_id": 0}
        | {"share_att_key": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
        | {"max_relative_positions": -1},
        (
            ("deberta-v3-xsmall", 128100, 384, 12, 6, 1536, 0),
            ("deberta-v3-small", 128100, 768, 6, 12, 3072, 0),
            ("mdeberta-v3-base", 251000, 768, 12, 12, 3072, 0),
            ("deberta-v2-xlarge", 128100, 1536, 24, 24, 6144, 3),
            ("deberta-v2-xxlarge", 128100, 1536, 48, 24, 6144, 3),
        ),
    ),
    "vit": (
        "hidden_size num_hidden_layers num_attention_heads intermediate_size patch_size image_size",
        {},
        (
            ("vit-tiny-patch16-224", 192, 12, 3, 768, 16, 224),
            ("vit-small-patch16-224", 384, 12, 6, 1536, 16, 224),
            ("vit-base-patch16-224", 768, 12, 12, 3072, 16, 224),
            ("vit-base-patch32-224", 768, 12, 12, 3072, 32, 224),
            ("vit-large-patch16-224", 1024, 24, 16, 4096, 16, 224),
            ("vit-huge-patch14-224", 1280, 32, 16, 5120, 14, 224),
        ),
    ),
}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
DECODERS: dict[str, tuple[str, dict[str, Any], tuple[Row, ...]]] = {
    "gpt2": (
        "vocab_size hidden_size num_hidden_layers num_attention_heads",
        {"max_position_embeddings": 1024, **TIED},
        (
            ("gpt2-small", 50257, 768, 12, 12),
            ("distilgpt2", 50257, 768, 6, 12),
            ("gpt2-medium", 50257, 1024, 24, 16),
            ("gpt2-large", 50257, 1280, 36, 20),
            ("gpt2-xl", 50257, 1600, 48, 25),
        ),
    ),
    "opt": (
        "vocab_size hidden_size num_hidden_layers num_attention_heads ffn_dim word_embed_proj_dim "
        "do_layer_norm_before",
        {"max_position_embeddings": 2048, **TIED},
        (
            ("opt-125m", 50272, 768, 12, 12, 3072, 768, True),
            ("opt-350m", 50272, 1024, 24, 16, 4096, 512, False),
            ("opt-1.3b", 50272, 2048, 24, 32, 8192, 2048, True),
            ("opt-2.7b", 50272, 2560, 32, 32, 10240, 2560, True),
            ("opt-6.7b", 50272, 4096, 32, 32, 16384, 4096, True),
            ("opt-13b", 50272, 5120, 40, 40, 20480, 5120, True),
            ("opt-30b", 50272, 7168, 48, 56, 28672, 7168, True),
        ),
    ),
    "llama": (
        f"{DECODER} tie_word_embeddings",
        {},
        (
            ("llama-7b", 32000, 4096, 32, 32, 11008, 32, False),
            ("llama-13b", 32000, 5120, 40, 40, 13824, 40, False),
            ("llama-30b", 32000, 6656, 60, 52, 17920, 52, False),
            ("llama-65b", 32000, 8192, 80, 64, 22016, 64, False),
            ("llama-2-7b", 32000, 4096, 32, 32, 11008, 32, False),
            ("llama-2-13b", 32000, 5120, 40, 40, 13824, 40, False),
            ("llama-2-70b", 32000, 8192, 80, 64, 28672, 8, False),
            ("llama-3-8b", 128256, 4096, 32, 32, 14336, 8, False),
            ("llama-3-70b", 128256, 8192, 80, 64, 28672, 8, False),
            ("llama-3.1-70b", 128256, 8192, 80, 64, 28672, 8, False),
            ("tinyllama-1.1b", 32000, 2048, 22, 32, 5632, 4, False),
            ("smollm2-1.7b", 49152, 2048, 24, 32, 8192, 32, True),
        ),
    ),
    "mistral": (
        DECODER,
        UNTIED,
        (("mistral-7b-v0.2", 32000, 4096, 32, 32, 14336, 8),),
    ),
    "qwen2": (
        f"{DECODER} tie_word_embeddings",
        {},
        (
            ("qwen2-0.5b", 151936, 896, 24, 14, 4864, 2, True),
            ("qwen2-1.5b", 151936, 1536, 28, 12, 8960, 2, True),
            ("qwen2-7b", 152064, 3584, 28, 28, 18944, 4, False),
            ("qwen2-72b", 152064, 8192, 80, 64, 29568, 8, False),
            ("qwen2.5-3b", 151936, 2048, 36, 16, 11008, 2, True),
            ("qwen2.5-14b", 152064, 5120, 48, 40, 13824, 8, False),
            ("qwen2.5-32b", 152064, 5120, 64, 40, 27648, 8, False),
            ("qwen2.5-72b", 152064, 8192, 80, 64, 29568, 8, False),
        ),
    ),
    "qwen3": (
        f"{DECODER} tie_word_embeddings",
        {"head_dim": 128},
        (
            ("qwen3-4b", 151936, 2560, 36, 32, 9728, 8, True),
            ("qwen3-14b", 151936, 5120, 40, 40, 17408, 8, False),
            ("qwen3-32b", 151936, 5120, 64, 64, 25600, 8, False),
        ),
    ),
    "gemma": (
        f"{DECODER} head_dim",
        TIED,
        (
            ("gemma-2b", 256000, 2048, 18, 8, 16384, 1, 256),
            ("gemma-7b", 256000, 3072, 28, 16, 24576, 16, 256),
        ),
    ),
    "gemma2": (
        f"{DECODER} head_dim",
        TIED,
        (
            ("gemma-2-2b", 256000, 2304, 26, 8, 9216, 4, 256),
            ("gemma-2-9b", 256000, 3584, 42, 16, 14336, 8, 256),
            ("gemma-2-27b", 256000, 4608, 46, 32, 36864, 16, 128),
        ),
    ),
    "phi": (
        DECODER,
        {"max_position_embeddings": 2048, **UNTIED},
        (
            ("phi-1.5", 51200, 2048, 24, 32, 8192, 32),
            ("phi-2", 51200, 2560, 32, 32, 10240, 32),
        ),
    ),
    "phi3": (
        DECODER,
        {"pad_token_id": 32000, **UNTIED},
        (
            ("phi-3-mini", 32064, 3072, 32, 32, 8192, 32),
            ("phi-3.5-mini", 32064, 3072, 32, 32, 8192, 32),
            ("phi-3-medium", 32064, 5120, 40, 40, 17920, 10),
        ),
    ),
    "falcon": (
        "vocab_size hidden_size num_hidden_layers num_attention_heads multi_query bias "
        "parallel_attn alibi",
        {"new_decoder_architecture": False, **TIED},
        (
            ("falcon-7b", 65024, 4544, 32, 71, True, False, True, False),
            ("falcon-rw-1b", 50304, 2048, 24, 32, False, True, False, True),
        ),
    ),
    "t5": (
        "vocab_size d_model num_layers num_heads d_ff d_kv feed_forward_proj tie_word_embeddings",
        {},
        (
            ("t5-small", 32128, 512, 6, 8, 2048, 64, "relu", True),
            ("t5-base", 32128, 768, 12, 12, 3072, 64, "relu", True),
            ("t5-large", 32128, 1024, 24, 16, 4096, 64, "relu", True),
            ("t5-3b", 32128, 1024, 24, 32, 16384, 128, "relu", True),
            ("flan-t5-small", 32128, 512, 8, 6, 1024, 64, "gated-gelu", False),
            ("flan-t5-base", 32128, 768, 12, 12, 2048, 64, "gated-gelu", False),
            ("flan-t5-large", 32128, 1024, 24, 16, 2816, 64, "gated-gelu", False),
            ("flan-t5-xl", 32128, 2048, 24, 32, 5120, 64, "gated-gelu", False),
            ("flan-t5-xxl", 32128, 4096, 24, 64, 10240, 64, "gated-gelu", False),
        ),
    ),
}


@cache
def configs() -> Mapping[str, Mapping[str, Any]]:
    """Return the config fields of every known model by its short name: presets and these."""
    found: dict[str, Mapping[str, Any]] = {name: presets()[name] for name in shape_names()}
    for kind, (columns, common, rows) in (ENCODERS | DECODERS).items():
        for name, *sizes in rows:
            own = dict(zip(columns.split(), sizes, strict=True))
            found[name] = {"model_type": kind, **common, **own}
    return found
