"""Architecture presets: the published sizes of models, and a tokenizer for those without one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from os.path import isfile, join
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PADDING = "[PAD]"
# A tokenizer needs one of these files. Without any, transformers makes an empty tokenizer for some
# models.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


@cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """Return the config fields of every architecture preset, by each of its ids.

    The files are a part of the package, and are read once in a process.
    """
    files = [
        tomllib.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path(__file__).parent.glob("*.toml"))
    ]
    return {name: file["config"] for file in files for name in file["ids"]}


def shape_names() -> list[str]:
    """Return the short names of the presets, without the owner of the hub id."""
    return [name for name in presets() if "/" not in name]


def has_vocabulary(folder: str) -> bool:
    """Whether this folder contains a tokenizer."""
    return any(isfile(join(folder, name)) for name in VOCABULARIES)


def number_tokenizer(vocabulary: int, padding: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose words are the token ids, written as numbers.

    '5 17' becomes [5, 17].
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {PADDING if number == padding else str(number): number for number in range(vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=PADDING))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        model_input_names=["input_ids", "attention_mask"],
    )
