"""Tokenizers of models, and the digest that identifies one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.models import presets
from peft_methods.models.config import (
    folder_or_id,
    has_tokenizer,
    load_config,
    loading_error,
    padding_of,
)
from peft_methods.models.model_head import ModelHead
from peft_methods.models.padding import check_vocabulary, embedding_rows, set_padding
from peft_methods.recipes.schema import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(spec: ModelSpec, head: ModelHead) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer. Raises `ModelError`.

    An architecture without one gets a tokenizer for ids written as numbers.
    """
    return fetch_tokenizer(spec, load_config(spec, head))[0]


def fetch_tokenizer(
    spec: ModelSpec, config: Any
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Return the tokenizer of a model whose config is loaded already, and remarks on it.

    It has a padding token. Raises `ModelError`, also if it has words without an embedding.
    """
    if not has_tokenizer(spec):
        return presets.number_tokenizer(embedding_rows(config), padding_of(config)), ()
    tokenizer = _pretrained_tokenizer(spec)
    check_vocabulary(tokenizer, config, spec.source)
    return tokenizer, set_padding(tokenizer, config, spec.source)


def _pretrained_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder_or_id(spec.source),
            revision=spec.revision or "main",
            trust_remote_code=spec.trust_remote_code,
        )
    except Exception as error:
        raise loading_error(spec, error) from None


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> Any | None:
    """Return as a JSON value everything that decides which ids a text gets.

    None for a tokenizer without a backend from the Rust library.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    # truncation and padding change with every call
    state = {name: part for name, part in whole.items() if name not in {"truncation", "padding"}}
    return [state, tokenizer.truncation_side, list(tokenizer.model_input_names)]


@contextlib.contextmanager
def keep_settings(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Undo what calls change in a tokenizer: how it truncates and pads.

    It would be saved with the tokenizer, and depend on which texts were tokenized here and which
    were found in the cache.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        backend.no_truncation()
        backend.no_padding()
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of a tokenizer.

    It covers what decides which ids a text gets, or, if that is unknown, the files that the
    tokenizer saves.
    """
    state = tokenizer_state(tokenizer)
    if state is None:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            state = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    template = chat_template(tokenizer)
    parts = [state, tokenizer.pad_token_id, *([] if template is None else [template])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def chat_template(tokenizer: PreTrainedTokenizerBase) -> Any | None:
    """Return how a tokenizer writes conversations, None if it does not."""
    return getattr(tokenizer, "chat_template", None)
