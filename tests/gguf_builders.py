"""GGUF files of real tiny Llamas, written by the `gguf` package, and wheels that hold them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers.convert_slow_tokenizer import bytes_to_unicode

from peft_methods.models.gguf_conversion import convert_llama
from peft_methods.utils.pinned_files import Conversion, Package

TYPES = gguf.GGMLQuantizationType
PADDING = "<|endoftext|>"
SPECIAL = (PADDING, "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "1 2")
BYTES = tuple(bytes_to_unicode().values())
TOKENS = (*SPECIAL, *BYTES, *(pair.replace(" ", "") for pair in MERGES))
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONFIG: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_llama(*, tied: bool = True) -> transformers.LlamaForCausalLM:
    """Return a tiny Llama with random weights, its norms too."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**CONFIG, tie_word_embeddings=tied)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


def write_gguf(path: Path, model: Any, kind: TYPES = TYPES.F32, **changes: Any) -> bytes:
    """Write a Llama as llama.cpp stores it and return the file's content.

    Matrices have the type `kind`, vectors fp32. `changes` replace metadata of the tokenizer:
    `pre`, `tokens`, `merges`.
    """
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    sizes = model.config
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_attention_heads)
    writer.add_head_count_kv(sizes.num_key_value_heads)
    writer.add_rope_freq_base(sizes.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    _add_tokenizer(writer, changes)
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and sizes.tie_word_embeddings:
            continue
        array = _in_their_order(name, values.numpy(), sizes)
        own = kind if array.ndim > 1 else TYPES.F32
        stored = gguf.quants.quantize(array, own)
        writer.add_tensor(_name(name), stored, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _add_tokenizer(writer: Any, changes: Mapping[str, Any]) -> None:
    tokens: Sequence[str] = changes.get("tokens", TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(changes.get("merges", MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[part]}.weight"


def _in_their_order(name: str, values: NDArray[Any], sizes: Any) -> NDArray[Any]:
    """Order the rows of queries and keys as llama.cpp does: a head's halves interleaved."""
    heads = {"q_proj": sizes.num_attention_heads, "k_proj": sizes.num_key_value_heads}
    count = next((heads[part] for part in heads if part in name), None)
    if count is None:
        return values
    halves = np.split(values.reshape(count, -1, values.shape[1]), 2, axis=1)
    return np.stack(halves, axis=2).reshape(values.shape)


def make_package(folder: Path, content: bytes, make: Any = None) -> Package:
    """Put a wheel with this GGUF file into a folder and return its pinned package.

    `make` replaces the conversion; its result is that of the real one.
    """
    wheel = folder / "tiny_llama-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_llama/tiny.gguf", content)
        archive.writestr("tiny_llama/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            "tiny_llama-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_llama-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_llama-1.0.dist-info/RECORD", "")
    expected = folder / "expected"
    expected.mkdir()
    convert = partial(convert_llama, padding=PADDING)
    convert(content, expected)
    files = {path.name: _sha256(path.read_bytes()) for path in expected.iterdir()}
    return Package(
        "tiny-llama==1.0",
        _sha256(wheel.read_bytes()),
        "tiny",
        {},
        Conversion("tiny_llama/tiny.gguf", _sha256(content), make or convert, files),
        space=3_000_000,
        about="a tiny model is made",
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
