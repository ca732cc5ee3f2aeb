"""The part of a task that reading data depends on. `data` itself interprets no label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from peft_methods.data.labelled_texts import Label, LabelledTexts
from peft_methods.data.raw import RawData
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import DataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ParsedData:
    """The labelled rows of a source by split, or all of them under `all`, and the label names.

    `merged_labels` has the other spellings of a label that count as the same one, by its name.
    `notes` are remarks on the labels for the user, one sentence each.
    """

    tables: dict[str, LabelledTexts]
    label_names: tuple[str, ...]
    merged_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Labelling(Protocol):
    """How a task reads its labels."""

    @property
    def name(self) -> str:
        """The name of the task."""

    @property
    def head(self) -> ModelHead:
        """The head that the task puts on a model."""

    @property
    def has_classes(self) -> bool:
        """Whether `strata` are the classes of the rows, in the order of the label names."""

    @property
    def texts_repeat(self) -> bool:
        """Whether rows with the same text and different labels are all right."""

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return texts and labels from the columns. Raises `DataError` that names the cause."""

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the label names of rows that are drawn at random."""

    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[Any]:
        """Draw the labels of rows that are drawn at random."""

    def random_rows(self, texts: list[str], labels: list[Any]) -> LabelledTexts:
        """Return the rows of texts and labels that are drawn at random."""

    def strata(self, labels: Sequence[Label]) -> Sequence[int]:
        """Return each row's stratum, 0..n-1. Every split gets nearly the same share of each."""

    def check_splits(
        self, splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
    ) -> None:
        """Raise `DataError` if a split is useless for this task."""

    def encode(
        self,
        table: LabelledTexts,
        tokenizer: PreTrainedTokenizerBase,
        spec: DataSpec,
        cut: int | None,
    ) -> TokenRows:
        """Return a split as token ids with labels; at most `cut` tokens a row, None: all."""

    def encoding_settings(self, spec: DataSpec) -> tuple[Any, ...]:
        """Return the settings of the data that `encode` depends on, beside the length."""

    def check_tokens(self, rows: Mapping[str, TokenRows], spec: DataSpec) -> tuple[str, ...]:
        """Return remarks on the encoded splits. Raises `DataError` if one is useless."""

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return the test metrics of a predictor that ignores the texts."""
