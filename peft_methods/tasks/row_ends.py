"""The ends of rows: what the classifiers of decoders read.

They take the last token that is not the padding token for the end of a text. Where a tokenizer ends
rows with the token that is also used for padding (the end of sequence), they would read the token
before it, and nothing at all in a row without tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def with_readable_ends(
    columns: dict[str, list[list[int]]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Remove padding tokens from the ends of rows, and give rows without tokens one.

    So the last token of a row is the last that is not padding, whoever pads it. A causal model has
    the same output there with the removed tokens or without them. Rows that end in another token,
    as those of encoders do, stay as they are.
    """
    padding, rows = tokenizer.pad_token_id, columns["input_ids"]
    short = [number for number, ids in enumerate(rows) if not ids or ids[-1] == padding]
    for number in short:
        ids = rows[number]
        if not ids:
            _fill(columns, number, tokenizer)
            continue
        length = max((at for at, one in enumerate(ids, 1) if one != padding), default=1)
        for column in columns.values():
            column[number] = column[number][:length]
    return columns


def _fill(
    columns: dict[str, list[list[int]]], number: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Give an empty row one token: that of the beginning, else that of the end of a sequence."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    first = next((one for one in known if one is not None), 0)
    values = {"input_ids": first, "attention_mask": 1}
    for name, column in columns.items():
        column[number] = [values.get(name, 0)]
