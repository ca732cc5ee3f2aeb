"""Tokenization of the splits, with a cache for many rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peft_methods.data.facts import TextData, TokenData, fingerprint
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import Labelling
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.tokenizer import chat_template, keep_settings, tokenizer_state
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.cache import cached

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_ROWS_TO_CACHE = 1000


def tokenize(
    data: TextData,
    tokenizer: PreTrainedTokenizerBase,
    spec: DataSpec,
    task: Labelling,
    *,
    check: bool = True,
) -> TokenData:
    """Return token ids, truncated to `data.max_length` and not padded.

    Batches are padded later, to their longest row. Without `check` a split may be useless, as a few
    rows of it may be. Raises `DataError` otherwise.
    """
    tokens, truncated = {}, {}
    used = data.tokenizer or tokenizer
    with keep_settings(used):
        for name, table in data.splits.items():
            tokens[name], truncated[name] = _tokenize_table(table, used, spec, task)
        notes = (*data.facts.notes, *(task.check_tokens(tokens, spec) if check else ()))
    return TokenData(**tokens, facts=replace(data.facts, truncated=truncated, notes=notes))


def _tokenize_table(
    table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, spec: DataSpec, task: Labelling
) -> tuple[TokenRows, float]:
    whole = _rows(table, tokenizer, spec, task, None)
    longer = sum(length > spec.max_length for length in whole.lengths)
    cut = _rows(table, tokenizer, spec, task, spec.max_length) if longer else whole
    return cut, longer / max(1, len(table))


def _rows(
    table: LabelledTexts,
    tokenizer: PreTrainedTokenizerBase,
    spec: DataSpec,
    task: Labelling,
    cut: int | None,
) -> TokenRows:
    """Return token ids. They are cached if there are so many rows that tokenizing takes long."""

    def make() -> TokenRows:
        return task.encode(table, tokenizer, spec, cut)

    state = tokenizer_state(tokenizer) if len(table) >= MIN_ROWS_TO_CACHE else None
    if state is None:
        return make()
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    known = [state, *ends, chat_template(tokenizer)]
    key = [fingerprint({"": table}), known, cut, task.name, *task.encoding_settings(spec)]
    return cached("tokens", key, make, read=TokenRows.read, write=TokenRows.write, suffix=".npz")
