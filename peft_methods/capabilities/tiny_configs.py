"""Configs of tiny models of every family, and the words that they know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import transformers

Configs = Mapping[str, Callable[[], Any]]  # of a model type

GOOD = ("good", "great", "fine", "superb")
BAD = ("bad", "awful", "poor", "dull")
FILLER = (
    "the",
    "film",
    "was",
    "a",
    "and",
    "its",
    "story",
    "actor",
    "scene",
    "music",
    "plot",
    "very",
    "so",
    "end",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (
    *SPECIAL,
    *GOOD,
    *BAD,
    *FILLER,
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
)

TINY: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONFIGS: Configs = {
    "bert": lambda: transformers.BertConfig(**TINY, **SIZES),
    "roberta": lambda: transformers.RobertaConfig(**TINY, **SIZES, type_vocab_size=1),
    "mpnet": lambda: transformers.MPNetConfig(**TINY, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        **TINY, dim=32, n_layers=2, n_heads=2, hidden_dim=64
    ),
}
RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
ENDS: dict[str, Any] = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
MORE_CONFIGS: Configs = {
    "electra": lambda: transformers.ElectraConfig(**TINY, **SIZES, embedding_size=16),
    "albert": lambda: transformers.AlbertConfig(**TINY, **SIZES, embedding_size=16),
    "deberta": lambda: transformers.DebertaConfig(**TINY, **SIZES, **RELATIVE),
    "deberta-v2": lambda: transformers.DebertaV2Config(  # the options of v3
        **TINY,
        **SIZES,
        **RELATIVE,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
    ),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**TINY, **SIZES, type_vocab_size=1),
    "modernbert": lambda: transformers.ModernBertConfig(**TINY, **SIZES, **ENDS),
    "fnet": lambda: transformers.FNetConfig(
        **TINY, hidden_size=32, num_hidden_layers=2, intermediate_size=64
    ),
    "longformer": lambda: transformers.LongformerConfig(**TINY, **SIZES, attention_window=[8, 8]),
    "funnel": lambda: transformers.FunnelConfig(
        vocab_size=len(VOCABULARY),
        pad_token_id=0,
        block_sizes=[1, 1],
        d_model=32,
        n_head=2,
        d_head=16,
        d_inner=64,
        architectures=["FunnelBaseModel"],
    ),
}

DECODER_SIZES: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 1,
}  # two query heads share keys and values
DECODER_ENDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3}
DECODER = {**TINY, **DECODER_SIZES, **DECODER_ENDS}
DECODERS: Configs = {
    "llama": lambda: transformers.LlamaConfig(**DECODER),
    "mistral": lambda: transformers.MistralConfig(**DECODER),
    "qwen2": lambda: transformers.Qwen2Config(**DECODER),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER, head_dim=8),
    "smollm3": lambda: transformers.SmolLM3Config(**DECODER),
    "gemma": lambda: transformers.GemmaConfig(**DECODER, head_dim=8),
    "gemma2": lambda: transformers.Gemma2Config(**DECODER, head_dim=8),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**DECODER, head_dim=8),
    "phi": lambda: transformers.PhiConfig(**DECODER),
    "phi3": lambda: transformers.Phi3Config(**DECODER),
    "gpt2": lambda: transformers.GPT2Config(
        **TINY, n_embd=32, n_layer=2, n_head=2, n_inner=64, n_positions=64, **DECODER_ENDS
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**TINY, **SIZES, **DECODER_ENDS),
    "opt": lambda: transformers.OPTConfig(
        **TINY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        word_embed_proj_dim=32,
        **DECODER_ENDS,
    ),
}
SEQ2SEQ_SIZES: dict[str, Any] = {"vocab_size": len(VOCABULARY), "d_model": 32, "pad_token_id": 0}
T5_SIZES: dict[str, Any] = {
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "eos_token_id": 3,
}
BART_SIZES: dict[str, Any] = {
    **SEQ2SEQ_SIZES,
    **DECODER_ENDS,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    "max_position_embeddings": 64,
    "decoder_start_token_id": 3,
}
SEQ2SEQ: Configs = {
    "t5": lambda: transformers.T5Config(**SEQ2SEQ_SIZES, **T5_SIZES, decoder_start_token_id=0),
    "mt5": lambda: transformers.MT5Config(**SEQ2SEQ_SIZES, **T5_SIZES, decoder_start_token_id=0),
    "bart": lambda: transformers.BartConfig(**BART_SIZES),
    "mbart": lambda: transformers.MBartConfig(**BART_SIZES),
    "plbart": lambda: transformers.PLBartConfig(**BART_SIZES),
}
