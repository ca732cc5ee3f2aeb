"""From prompts and completions to token ids with a label for each token that is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_methods.data.labelled_texts import LabelledTexts, Turns
from peft_methods.data.token_rows import TokenRows
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError, ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LABEL = -100  # as in tasks/collate.py, which imports torch
NOTHING_LEFT_LIMIT = 0.01  # share of a split's rows without any token to learn


@dataclass(frozen=True)
class Encoder:
    """Token ids of prompts and completions by one tokenizer.

    Both parts are tokenized on their own, so that a prompt has the same ids whatever follows. A
    completion ends with the end-of-sequence token, which is learnt. The begin-of-sequence token is
    added where the tokenizer itself would add it.
    """

    tokenizer: PreTrainedTokenizerBase
    source: str

    @cached_property
    def start(self) -> list[int]:
        """The begin-of-sequence token, or nothing."""
        first, found = self.tokenizer.bos_token_id, self.tokenizer("a")["input_ids"]
        return [first] if first is not None and list(found)[:1] == [first] else []

    @cached_property
    def end(self) -> list[int]:
        """The end-of-sequence token, or nothing where the tokenizer has none."""
        last = self.tokenizer.eos_token_id
        return [] if last is None else [last]

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts without special tokens at their ends."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [list(ids) for ids in found["input_ids"]]

    def prompts(self, table: LabelledTexts) -> list[list[int]]:
        """Return the ids of all prompts, as the model is given them to generate."""
        if table.turns is not None:
            return self.many([self._chat(turns) for turns in table.turns])
        return [[*self.start, *ids] for ids in self.many(table.texts)]

    def completions(self, table: LabelledTexts) -> list[list[int]]:
        """Return the ids of all completions with the end-of-sequence token.

        Of several references it is the first.
        """
        answers = [label if isinstance(label, str) else label[0] for label in table.labels]
        if table.turns is None:
            return [[*ids, *self.end] for ids in self.many(answers)]
        ended, mark = [], self.tokenizer.eos_token
        for row, (turns, answer) in enumerate(zip(table.turns, answers, strict=True)):
            answers[row] = self._chat_answer(turns, answer)
            ended.append(bool(mark) and mark in answers[row])  # by the template
            if ended[-1]:
                answers[row] = answers[row][: answers[row].rindex(mark) + len(mark)]
        return [
            ids if has_end else [*ids, *self.end]
            for ids, has_end in zip(self.many(answers), ended, strict=True)
        ]

    def parts(self, table: LabelledTexts) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the ids of each row in two parts: given, and to be learnt.

        All of a text without a completion is learnt, but for a begin-of-sequence token.
        """
        if all(label == "" for label in table.labels):
            for ids in self.many(table.texts):
                yield list(self.start), [*ids, *self.end]
            return
        yield from zip(self.prompts(table), self.completions(table), strict=True)

    def _chat(self, turns: Turns, answer: str | None = None) -> str:
        """Return a conversation by the tokenizer's chat template. Raises `ModelError`."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(
                f"the data of {self.source!r} are conversations, but this model's tokenizer has no "
                f"chat template. Set model.source to a chat (instruct) model, or write the rows "
                f"as prompt and completion.",
                setting="model.source",
            )
        said = [{"role": role, "content": content} for role, content in turns]
        if answer is not None:
            said.append({"role": "assistant", "content": answer})
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    said, tokenize=False, add_generation_prompt=answer is None
                )
            )
        except Exception as error:  # a template raises whatever it likes
            raise DataError(
                f"{self.source}: the tokenizer's chat template refuses a conversation with the "
                f"roles {', '.join(role for role, _ in turns)}: {first_line(error)}. Change the "
                f"rows, or set model.source to a model whose template allows them.",
                setting="data.messages",
            ) from None

    def _chat_answer(self, turns: Turns, answer: str) -> str:
        """Return what follows the prompt of a conversation when it is answered."""
        before, whole = self._chat(turns), self._chat(turns, answer)
        if not whole.startswith(before):
            raise ModelError(
                "the tokenizer's chat template writes the turns before an answer differently once "
                "the answer is known, so its tokens cannot be told apart. Write the rows as prompt "
                "and completion, or set model.source to another model.",
                setting="model.source",
            )
        return whole[len(before) :]


def encode_rows(
    table: LabelledTexts,
    tokenizer: PreTrainedTokenizerBase,
    spec: DataSpec,
    cut: int | None,
) -> TokenRows:
    """Return token ids with the columns `attention_mask` and `labels`.

    A label is the token's own id, or -100 for tokens that are not learnt: the shift by one is done
    in the loss. The first token of a row has no label, since nothing predicts it. Rows of more than
    `cut` tokens lose their ends.
    """
    encoder = Encoder(tokenizer, spec.source)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for given, learnt in encoder.parts(table):
        ids = [*given, *learnt][:cut]
        unlabelled = 1 if spec.loss_on == "all" else max(1, len(given))
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([NO_LABEL] * min(unlabelled, len(ids)) + ids[unlabelled:])
    return TokenRows.of(columns, None)


def labelled_tokens(rows: TokenRows) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the number of learnt tokens of each row."""
    counts = [int((labels != NO_LABEL).sum()) for labels in rows.tokens["labels"]]
    return np.asarray(counts, dtype=np.int64)


def remarks(rows: Mapping[str, TokenRows], spec: DataSpec) -> tuple[str, ...]:
    """Return remarks on rows whose completion was cut off.

    Raises `DataError` if that is more than a few of a split.
    """
    found = []
    for split, table in rows.items():
        lost = int((labelled_tokens(table) == 0).sum())
        if lost > NOTHING_LEFT_LIMIT * len(table):
            raise DataError(
                f"{spec.source}: {lost} of {len(table)} prompts of {split} have {spec.max_length} "
                f"tokens or more, so nothing of their completions is left to learn. Set "
                f"data.max_length to more, or shorten or remove these rows.",
                setting="data.max_length",
            )
        if lost:
            found.append(
                f"{lost:,} of {len(table):,} prompts of {split} fill data.max_length = "
                f"{spec.max_length} tokens: their completions are not learnt."
            )
    return tuple(found)


def padded_left(
    rows: Sequence[Sequence[int]], padding: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return ids padded to the longest row at the left, and their attention mask."""
    longest = max(map(len, rows))
    ids = [[padding] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return ids, mask
