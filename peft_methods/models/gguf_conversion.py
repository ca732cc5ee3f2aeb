"""Conversion of a Llama in a GGUF file to a model folder as transformers loads it.

transformers can read such files itself (`gguf_file=`), but the tokenizer that it makes of this one
(5.17) differs from the model's own: numbers are not split into digits, and a text ends with the
token that begins a turn. Here every byte of the result is determined by the file: a second
conversion gives the same files, under any version of the libraries.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.models.gguf import GgufFile, GgufTensor, parse_gguf

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # type of a token such as <|im_start|>
# Numbers are split into digits, then the text as GPT-2 does (llama.cpp's name for it: "smollm").
DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def convert_llama(content: bytes, folder: Path, *, padding: str) -> None:
    """Write the model in a GGUF file to a folder in hub layout, its weights in fp32.

    `padding` is the token that fills up short rows; it should occur in no text. The others come
    from the file. Raises `ValueError` for a file that is no Llama with SmolLM's tokenizer.
    """
    file = parse_gguf(content)
    try:
        _write_weights(file, folder / "model.safetensors")
        special = _special_tokens(file.metadata, padding)
        _write_json(_config(file, special), folder / "config.json")
        _write_json(special, folder / "generation_config.json")
        _write_json(_tokenizer(file.metadata), folder / "tokenizer.json")
        _write_json(_tokenizer_config(file.metadata, special), folder / "tokenizer_config.json")
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _config(file: GgufFile, special: Mapping[str, int]) -> dict[str, Any]:
    metadata = file.metadata
    if metadata["general.architecture"] != "llama":
        raise ValueError(f"it holds a {metadata['general.architecture']!r} model, not a Llama")
    hidden, heads = metadata["llama.embedding_length"], metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": metadata["llama.rope.freq_base"],
        },
        "tie_word_embeddings": all(one.name != "output.weight" for one in file.tensors),
        "dtype": "float32",
        **special,
    }


def _special_tokens(metadata: Mapping[str, Any], padding: str) -> dict[str, int]:
    """Return the ids of the tokens that begin and end a turn, and of the padding token."""
    tokens = metadata["tokenizer.ggml.tokens"]
    if padding not in tokens:
        raise ValueError(f"its vocabulary has no {padding}")
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": tokens.index(padding),
    }


def _tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer as the `tokenizers` library reads it."""
    kind = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"its tokenizer is {kind}, not ('gpt2', 'smollm')")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": tokens[number],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, kind in enumerate(types)
            if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": DIGITS_THEN_BYTES,
        "post_processor": None,
        "decoder": BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in metadata["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(metadata: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        # Not GPT2Tokenizer, which would replace what splits the text by its own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{name.removesuffix("_id"): tokens[number] for name, number in special.items()},
        "chat_template": metadata["tokenizer.chat_template"],
    }


def _write_weights(file: GgufFile, path: Path) -> None:
    """Write the tensors as safetensors, one at a time, so that few are in memory.

    The format is a JSON header, preceded by its length, and the values. It is written here since a
    library may order the header differently one day, and the file's sha256 is pinned.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in file.tensors:
        start, end = end, end + 4 * math.prod(tensor.shape)
        header[_name(tensor)] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in file.tensors:
            out.write(_ordered(file, tensor).tobytes())


def _name(tensor: GgufTensor) -> str:
    """Return the name that transformers gives this tensor."""
    if (found := LAYER.fullmatch(tensor.name)) and found[2] in IN_LAYER:
        return f"model.layers.{found[1]}.{IN_LAYER[found[2]]}.weight"
    if tensor.name not in OUTSIDE:
        raise ValueError(f"it has the unknown tensor {tensor.name}")
    return OUTSIDE[tensor.name]


def _ordered(file: GgufFile, tensor: GgufTensor) -> NDArray[Any]:
    """Return a tensor's values with the rows in transformers' order.

    llama.cpp rotates neighbouring pairs of a head's rows, transformers the halves of a head.
    """
    heads = {
        "attn_q": "llama.attention.head_count",
        "attn_k": "llama.attention.head_count_kv",
    }
    values = file.values(tensor)
    found = LAYER.fullmatch(tensor.name)
    if found is None or found[2] not in heads:
        return values
    count = file.metadata[heads[found[2]]]
    pairs = values.reshape(count, -1, 2, values.shape[-1])
    return pairs.swapaxes(1, 2).reshape(values.shape)
