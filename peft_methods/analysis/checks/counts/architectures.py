"""Architectures of the known models, without a head: from closed forms, or from their config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from peft_methods.analysis.checks.counts.catalogue import configs
from peft_methods.models.architecture import Architecture, architecture_of
from peft_methods.models.layer_parts import ROLES, LinearLayer, ModelSizes
from peft_methods.models.module_maps import MODULE_MAPS

# Standard config names -> DistilBERT's names.
SIZES = {"num_hidden_layers": "n_layers", "hidden_size": "dim", "num_attention_heads": "n_heads"}
POOLED = ("bert", "albert")  # their classifiers read the output of the encoder's own pooler
# Words after a model's name that leave its sizes as they are.
NEUTRAL_WORDS = (
    "instruct chat it pt hf base model 4bit 8bit bnb nf4 int4 int8 fp16 bf16 4k 8k 128k v1.0 v1.1 "
    "in21k 2407 1106 preview step 50k intermediate 1431k 3t the encoder en english"
)
NEUTRAL = frozenset(NEUTRAL_WORDS.split())
ALIASES = {
    "gpt2": "gpt2-small", "gpt-2": "gpt2-small", "gpt2-s": "gpt2-small", "gpt2-m": "gpt2-medium",
    "gpt2-l": "gpt2-large", "bert-b": "bert-base", "bert-l": "bert-large",
    "roberta-b": "roberta-base", "roberta-l": "roberta-large", "rob-b": "roberta-base",
    "xlm-r-base": "xlm-roberta-base", "xlmr-base": "xlm-roberta-base",
    "xlm-r-large": "xlm-roberta-large", "xlmr-large": "xlm-roberta-large",
    "llama-1-7b": "llama-7b", "llama-1-13b": "llama-13b", "vit-b": "vit-base",
    "vit-b-16": "vit-base-patch16", "vit-b-32": "vit-base-patch32", "vit-l": "vit-large",
    "vit-l-16": "vit-large-patch16", "phi-1-5": "phi-1.5", "all-minilm-l6-v2": "minilm-l6",
    "all-mpnet-base-v2": "mpnet-base", "tinyllama": "tinyllama-1.1b",
}  # fmt: skip


@dataclass(frozen=True)
class KnownModel:
    """A published model: its name, its architecture without a head, the rows of its embeddings.

    `writes` is the size of the projection to the vocabulary where that is a matrix of its own.
    """

    name: str
    architecture: Architecture
    vocabulary: int
    writes: int


@cache
def known() -> Mapping[str, KnownModel]:
    """Return every known model by its name in lower case."""
    return {name.lower(): _model(name, config) for name, config in configs().items()}


@cache
def model_of(architecture: Architecture) -> KnownModel | None:
    """Return the known model with this architecture, whatever its head."""
    return _by_architecture().get(replace(architecture, head_parameters=0, labels=0))


@cache
def _by_architecture() -> Mapping[Architecture, KnownModel]:
    return {one.architecture: one for one in known().values()}


def _model(name: str, config: Mapping[str, Any]) -> KnownModel:
    kind = config["model_type"]
    sizes = {ours: config[theirs] for ours, theirs in SIZES.items() if theirs in config}
    described = SimpleNamespace(**{**config, **sizes, "num_labels": 0})
    if kind in MODULE_MAPS:
        found = architecture_of(described, head_parameters=0, pooler=kind in POOLED)
    else:
        depth, hidden, outer = _OTHERS[kind](described)
        found = Architecture(
            kind, None, depth, depth, hidden, False, 0, 0, sizes=outer, embedding_width=hidden
        )
    rows = config.get("vocab_size", 0)
    is_tied = config.get("tie_word_embeddings", kind not in MODULE_MAPS and kind != "t5")
    return KnownModel(name, found, rows, 0 if is_tied else rows * found.embedding_width)


def _deberta(config: Any) -> tuple[int, int, ModelSizes]:
    """DeBERTa's first version: one matrix for query, key and value, and two for positions."""
    h, inner = config.hidden_size, config.intermediate_size
    linear = (
        LinearLayer("attention.self.in_proj", h, 3 * h, ROLES[:3], has_bias=False),
        LinearLayer("attention.self.pos_proj", h, h, (), has_bias=False),
        LinearLayer("attention.self.pos_q_proj", h, h, ()),
        LinearLayer("attention.output.dense", h, h, ("attention_output",)),
        LinearLayer("intermediate.dense", h, inner, ("ffn_input",)),
        LinearLayer("output.dense", inner, h, ("ffn_output",)),
    )
    # Biases of query and value are parameters beside the norms'.
    outer = (config.vocab_size + 2 + 2 * config.max_position_embeddings) * h
    return config.num_hidden_layers, h, ModelSizes(linear, 6 * h, 4 * h, outer, h)


def _vit(config: Any) -> tuple[int, int, ModelSizes]:
    h, inner, patch = config.hidden_size, config.intermediate_size, config.patch_size
    linear = (
        *(LinearLayer(f"attention.{role}", h, h, (role,)) for role in ROLES[:4]),
        LinearLayer("intermediate.dense", h, inner, ("ffn_input",)),
        LinearLayer("output.dense", inner, h, ("ffn_output",)),
    )
    positions = (config.image_size // patch) ** 2 + 1
    outer = (1 + positions + 3 * patch * patch + 1 + 2) * h
    return config.num_hidden_layers, h, ModelSizes(linear, 4 * h, 2 * h, outer, 2 * h)


def _falcon(config: Any) -> tuple[int, int, ModelSizes]:
    h, bias = config.hidden_size, config.bias
    keys = h // config.num_attention_heads if config.multi_query else h
    linear = (
        LinearLayer("self_attention.query_key_value", h, h + 2 * keys, ROLES[:3], bias),
        LinearLayer("self_attention.dense", h, h, ("attention_output",), bias),
        LinearLayer("mlp.dense_h_to_4h", h, 4 * h, ("ffn_input",), bias),
        LinearLayer("mlp.dense_4h_to_h", 4 * h, h, ("ffn_output",), bias),
    )
    norms = 1 if config.parallel_attn else 2
    outer = (config.vocab_size + 2) * h
    return config.num_hidden_layers, h, ModelSizes(linear, 2 * norms * h, norms * h, outer, h)


def _t5(config: Any) -> tuple[int, int, ModelSizes]:
    """One layer is a pair: the encoder's and the decoder's, with three attentions in all."""
    h, inner, width = config.d_model, config.d_ff, config.num_heads * config.d_kv
    is_gated = config.feed_forward_proj.startswith("gated")
    roles = dict(zip("qkvo", ROLES[:4], strict=True))
    attention = tuple(
        LinearLayer(name, *((width, h) if name == "o" else (h, width)), (role,), has_bias=False)
        for name, role in roles.items()
        for _ in range(3)
    )
    forward = tuple(
        LinearLayer(name, *((inner, h) if name == "wo" else (h, inner)), (role,), has_bias=False)
        for name, role in (
            *((wi, "ffn_input") for wi in (("wi_0", "wi_1") if is_gated else ("wi",))),
            ("wo", "ffn_output"),
        )
        for _ in range(2)
    )
    outer = config.vocab_size * h + 2 * 32 * config.num_heads + 2 * h
    return config.num_layers, h, ModelSizes(attention + forward, 5 * h, 0, outer, 0)


_OTHERS = {"deberta": _deberta, "vit": _vit, "falcon": _falcon, "t5": _t5}


def named(text: str) -> tuple[KnownModel, ...]:
    """Return the known models that a name may mean; none if these differ in depth or width.

    `bert-base` means `bert-base-uncased` and `bert-base-cased`. An owner before a slash is ignored,
    and so are words such as `instruct` after the name.
    """
    words = _words(text)
    if not words:
        return ()
    found = next((some for key in _keys(words) if (some := _with_key(key))), ())
    sizes = {(one.architecture.layers, one.architecture.hidden) for one in found}
    return found if len(sizes) == 1 else ()


def _words(text: str) -> list[str]:
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", text.casefold()).strip()
    owner, _, rest = text.rpartition("/")
    # "ViT-B/16" has no owner.
    text = f"{owner} {rest}" if rest.strip().isdigit() else rest
    words = [word for word in re.split(r"[\s_-]+", text) if word]
    return words[1:] if len(words) > 1 and words[0] == "meta" else words


def _keys(words: list[str]) -> Iterator[str]:
    """Yield the joined name without none, one, two … of its last words, if those are neutral."""
    last = len(words)
    while last:
        yield "".join(words[:last])
        if words[last - 1] not in NEUTRAL:
            return
        last -= 1


@cache
def _with_key(key: str) -> tuple[KnownModel, ...]:
    key = _aliases().get(key, key)
    exact = tuple(one for name, one in known().items() if "".join(_words(name)) == key)
    starts = (
        one
        for name, one in known().items()
        if any("".join(_words(name)[:some]) == key for some in range(1, len(_words(name))))
    )
    return exact or tuple(starts)


@cache
def _aliases() -> Mapping[str, str]:
    return {"".join(_words(one)): "".join(_words(other)) for one, other in ALIASES.items()}
