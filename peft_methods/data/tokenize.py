"""Tokenization of the splits, with a cache for many rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft_methods.data.facts import TextData, TokenData, fingerprint
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.tokenizer import tokenizer_state
from peft_methods.utils.cache import cached

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_ROWS_TO_CACHE = 1000


def tokenize(data: TextData, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenData:
    """Return token ids, truncated to `max_length` and not padded.

    Batches are padded later, to their longest row.
    """
    tokens, truncated = {}, {}
    for name, table in data.splits.items():
        tokens[name], truncated[name] = _tokenize_table(
            table, data.tokenizer or tokenizer, max_length
        )
    return TokenData(**tokens, facts=replace(data.facts, truncated=truncated))


def _tokenize_table(
    table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[TokenRows, float]:
    whole = _rows(table, tokenizer, None)
    longer = sum(length > max_length for length in whole.lengths)
    return _rows(table, tokenizer, max_length) if longer else whole, longer / max(1, len(table))


def _rows(table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, cut: int | None) -> TokenRows:
    """Return token ids. They are cached if there are so many rows that tokenizing takes long."""

    def make() -> TokenRows:
        columns: dict[str, Any] = {"input_ids": [], "attention_mask": []}
        if len(table):
            columns = dict(
                tokenizer(
                    table.texts,
                    table.pairs,
                    truncation=cut is not None,
                    max_length=cut,
                    verbose=False,
                )
            )
        return TokenRows.of(columns, table.labels)

    state = tokenizer_state(tokenizer) if len(table) >= MIN_ROWS_TO_CACHE else None
    if state is None:
        return make()
    key = [fingerprint({"": table}), state, cut]
    return cached("tokens", key, make, read=TokenRows.read, write=TokenRows.write, suffix=".npz")
