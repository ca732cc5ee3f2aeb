"""The rows of a recipe, as texts and as tokens, and the facts about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.overlap import Overlap
from peft_methods.data.token_rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data of a run. They are stored in its record.

    `class_counts` maps a split to its counts in the order of `label_names`. `removed` counts the
    train rows that were removed because their text also occurs elsewhere (or is part of a
    validation sentence). `truncated` is the share of rows longer than `max_length` tokens.
    `overlap` measures how much of test and validation is contained in train, or contains parts of
    it. It is empty for text pairs, whose first texts repeat in many rows. `random` means that
    tokens and labels were drawn in place of the source's. `source_counts` are the class counts of
    what each split was drawn from, as read. `texts` counts the distinct texts of the source, and
    `contradictory` those that occur with more than one label. `label_runs` counts, per split, the
    runs of consecutive rows with the same class, `source_label_runs` those of what it was drawn
    from, as read. `test_fingerprint` is that of the test rows alone, where seeds draw the others:
    all runs share these rows. `drawn_from` maps a split to the part of the source that its rows
    were drawn from: itself, `train` for a split that the source lacks, or `all`. `merged_labels`
    has the other spellings of a label, by its name. `trivial_baseline` has the test metrics of the
    task's predictor that ignores the texts; it is empty without test rows. `notes` are the task's
    remarks on its labels and, once they are tokens, on the rows.
    """

    source: str
    label_names: tuple[str, ...]
    class_counts: dict[str, tuple[int, ...]]
    fingerprint: str
    removed: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, Overlap] = field(default_factory=dict)
    random: bool = False
    source_counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    texts: int = 0
    contradictory: int = 0
    label_runs: dict[str, int] = field(default_factory=dict)
    source_label_runs: dict[str, int] = field(default_factory=dict)
    drawn_from: dict[str, str] = field(default_factory=dict)
    merged_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    test_fingerprint: str = ""
    trivial_baseline: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextData:
    """The selected rows, as text, by split.

    `tokenizer` is the one the texts are written for, if that is not the model's.
    """

    splits: dict[str, LabelledTexts]
    facts: DataFacts
    tokenizer: PreTrainedTokenizerBase | None = None


@dataclass(frozen=True)
class TokenData:
    """The selected rows as token ids, by split."""

    train: TokenRows
    validation: TokenRows
    test: TokenRows
    facts: DataFacts


def fingerprint(splits: dict[str, LabelledTexts]) -> str:
    """Return the sha256 of all rows, in order."""
    digest = hashlib.sha256()
    for name, table in splits.items():
        digest.update(repr((name, table.texts, table.pairs, table.labels)).encode())
        if table.words is not None:
            digest.update(repr(table.words).encode())
        if table.turns is not None:
            digest.update(repr(table.turns).encode())
    return digest.hexdigest()
