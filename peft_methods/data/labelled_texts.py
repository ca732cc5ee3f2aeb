"""The type of a split's rows as text with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Turns = tuple[tuple[str, str], ...]  # role and content of each turn of a conversation
Label = Any  # what a task makes of a row's label column; it can be hashed and compared


@dataclass(frozen=True)
class LabelledTexts:
    """The rows of one split: texts, labels, and second texts for tasks on text pairs.

    A label is what the task's `parse` returns: a class 0..n-1, a number, or a tuple of either.
    `words` are the texts cut into words, for tasks that label each word. `turns` are the texts as
    conversations, for a model's own chat template.
    """

    texts: list[str]
    labels: list[Label]
    pairs: list[str] | None = None
    words: list[tuple[str, ...]] | None = None
    turns: list[Turns] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> LabelledTexts:
        """Return these rows, in this order."""
        rows = list(rows)
        return LabelledTexts(
            [self.texts[row] for row in rows],
            [self.labels[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            None if self.words is None else [self.words[row] for row in rows],
            None if self.turns is None else [self.turns[row] for row in rows],
        )

    def row_keys(self) -> list[str]:
        """Return what identifies each row: its text, or both of its texts."""
        if self.pairs is None:
            return self.texts
        return [f"{a}\x1f{b}" for a, b in zip(self.texts, self.pairs, strict=True)]

    def drop_duplicates(
        self, key: Callable[[str], str], *, of_label: bool = False
    ) -> LabelledTexts:
        """Return the first row of each distinct text, or of each text with the same label."""
        first: dict[tuple[str, Label], int] = {}
        for row, text in enumerate(self.row_keys()):
            first.setdefault((key(text), self.labels[row] if of_label else None), row)
        return self.take(first.values())

    def drop_texts_of(
        self, other: LabelledTexts, key: Callable[[str], str]
    ) -> tuple[LabelledTexts, int]:
        """Return the rows whose text is not in `other`, and the number of removed rows."""
        held = {key(text) for text in other.row_keys()}
        kept = self.take(row for row, text in enumerate(self.row_keys()) if key(text) not in held)
        return kept, len(self) - len(kept)
