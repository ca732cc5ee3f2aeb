"""Words to tokens: which token carries the label of a word, and which words no token stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.token_rows import TokenRows
from peft_methods.utils.errors import ModelError
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1  # of tokens that carry no label: special tokens, and all but the first of a word
WORDS, TAGS = "words", "tags"  # columns of token rows beside the tokenizer's


def encode_words(
    table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, cut: int | None
) -> TokenRows:
    """Return token rows with two more columns. Raises `ModelError` for a slow tokenizer.

    `words` has a number for each token: that of the word whose first token it is, else NO_WORD.
    `tags` has the label of each word of the sentence, also of those that were cut off.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is a slow tokenizer, which does not tell which word a "
            f"token is part of. Set model.source to a model with a fast tokenizer "
            f"(tokenizer.json).",
            setting="model.source",
        )
    tags = [list(labels) for labels in table.labels]
    if not len(table):
        empty: dict[str, Any] = {"input_ids": [], "attention_mask": [], WORDS: [], TAGS: []}
        return TokenRows.of(empty, None)
    assert table.words is not None, "`parse` returns them"
    space = " " if _needs_space(tokenizer) else ""
    encoded = tokenizer(
        [[f"{space}{word}" for word in words] for words in table.words],
        is_split_into_words=True,
        truncation=cut is not None,
        max_length=cut,
        verbose=False,
    )
    words = [_first_tokens(encoded.word_ids(row)) for row in range(len(table))]
    return TokenRows.of({**encoded, WORDS: words, TAGS: tags}, None)


def _first_tokens(word_ids: Sequence[int | None]) -> list[int]:
    """Return the word's number at its first token, NO_WORD at all others."""
    result, before = [], None
    for word in word_ids:
        result.append(NO_WORD if word is None or word == before else word)
        before = word
    return result


def _needs_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer joins words without a blank, as byte-level ones do by default.

    Then every word gets a blank before it, which is what `add_prefix_space=True` does.
    """
    backend: Any = tokenizer
    state = json.loads(backend.backend_tokenizer.to_str()).get("pre_tokenizer") or {}
    parts = [state, *state.get("pretokenizers", ())]
    kinds = [part for part in parts if part.get("type") == "ByteLevel"]
    return bool(kinds) and not any(part.get("add_prefix_space") for part in kinds)


def token_labels(row: Mapping[str, NDArray[np.int64]], ignored: int) -> NDArray[np.int64]:
    """Return the label of each token: that of a word at its first token, else `ignored`."""
    words = row[WORDS]
    result: NDArray[np.int64] = np.where(words == NO_WORD, ignored, row[TAGS][words])
    return result


def labelled_tokens(rows: TokenRows) -> int:
    """Return the number of tokens that carry a label."""
    return int(sum((words != NO_WORD).sum() for words in rows.tokens[WORDS]))


def notes_on_unread(splits: Mapping[str, TokenRows], max_length: int) -> tuple[str, ...]:
    """Return a sentence on the words that no token stands for, if there are any."""
    found = []
    for split, rows in splits.items():
        words, entities = _unread(rows)
        if words:
            found.append(
                f"{counted(words, 'word')} and {counted(entities, 'entity', 'entities')} in {split}"
            )
    if not found:
        return ()
    return (
        f"Not read, because they are cut off by data.max_length = {max_length} or have no token: "
        f"{'; '.join(found)}. In validation and test they count as errors.",
    )


def _unread(rows: TokenRows) -> tuple[int, int]:
    """Count the words that were not read, and the entities that contain one of them."""
    words = entities = 0
    for tokens, tags in zip(rows.tokens[WORDS], rows.tokens[TAGS], strict=True):
        unread = np.ones(len(tags), dtype=bool)
        unread[tokens[tokens != NO_WORD]] = False
        if unread.any():
            number = np.cumsum(tags % 2 == 1)  # labels that begin an entity are odd
            words += int(unread.sum())
            entities += len(np.unique(number[unread & (tags > 0)]))
    return words, entities
