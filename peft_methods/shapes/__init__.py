"""Shapes: encoders described by their published sizes alone, and the tokenizer of those that come without one."""

from __future__ import annotations

import tomllib
from os.path import isfile, join
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PADDING = "[PAD]"
# What a tokenizer cannot do without; beside them transformers would make an empty one for some models.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def shapes() -> dict[str, dict[str, Any]]:
    """The sizes of every shape that comes with the project (a transformers config's fields), by each of its ids."""
    files = [
        tomllib.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path(__file__).parent.glob("*.toml"))
    ]
    return {name: file["config"] for file in files for name in file["ids"]}


def shape_names() -> list[str]:
    """The shapes' own names, without the owners that hub ids have."""
    return [name for name in shapes() if "/" not in name]


def has_vocabulary(folder: str) -> bool:
    """Whether a tokenizer lies in this folder."""
    return any(isfile(join(folder, name)) for name in VOCABULARIES)


def number_tokenizer(vocabulary: int, padding: int) -> PreTrainedTokenizerBase:
    """A tokenizer whose words are the token ids themselves, written as numbers: '5 17' is [5, 17]."""
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
