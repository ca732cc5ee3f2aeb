"""Tokenized rows in memory, as arrays. Building a batch takes microseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TokenRow = dict[str, Any]
OF_ROWS = "row_labels"  # the array of labels in a file
LENGTHS = "lengths"  # that of row lengths; "lengths NAME" for a column with others


@dataclass(frozen=True)
class TokenRows:
    """Token columns and labels.

    `tokens` maps a column (`input_ids`, `attention_mask`, …) to one int64 array per row; `labels`
    has shape (rows,), or (rows, labels of a row). Tasks with labels of tokens or words have them as
    further columns of `tokens` instead, and None here; a column may have other row lengths than
    `input_ids`.
    """

    tokens: Mapping[str, Sequence[NDArray[np.int64]]]
    labels: NDArray[Any] | None

    @classmethod
    def of(
        cls, columns: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[Any] | None
    ) -> TokenRows:
        """Return rows from lists of token ids and the like, as a tokenizer returns them.

        Whole numbers become int64, others float64. `labels` is None if they are among the columns.
        """
        tokens = {
            name: [np.asarray(row, dtype=np.int64) for row in rows]
            for name, rows in columns.items()
        }
        return cls(tokens, None if labels is None else _array(labels))

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def __getitem__(self, row: int) -> TokenRow:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        tokens = {name: rows[row] for name, rows in self.tokens.items()}
        return tokens if self.labels is None else tokens | {"labels": self.labels[row]}

    def __iter__(self) -> Iterator[TokenRow]:
        return (self[row] for row in range(len(self)))

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of one row's label: () for one, (labels,) for several."""
        return () if self.labels is None else self.labels.shape[1:]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each row."""
        return [len(row) for row in self.tokens["input_ids"]]

    def write(self, path: Path) -> None:
        """Write an .npz file in which the rows of each column are concatenated."""
        columns = {
            name: np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int32)
            for name, rows in self.tokens.items()
        }
        own = self.lengths
        lengths = {
            f"{LENGTHS}{'' if found == own else f' {name}'}": np.asarray(found, dtype=np.int64)
            for name, rows in self.tokens.items()
            for found in ([len(row) for row in rows],)
        }
        labels = {} if self.labels is None else {OF_ROWS: self.labels}
        np.savez(path, **lengths, **labels, **columns)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> TokenRows:
        """Read a file of `write`.

        An incomplete file raises whatever numpy raises.
        """
        # opened here because np.load does not close a damaged file
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            columns = {name: saved[name] for name in saved.files}
        labels = columns.pop(OF_ROWS, None)
        lengths = {name: columns.pop(name) for name in list(columns) if name.startswith(LENGTHS)}
        tokens = {
            name: _split(flat, lengths.get(f"{LENGTHS} {name}", lengths[LENGTHS]))
            for name, flat in columns.items()
        }
        return cls(tokens, labels)

    def select(self, chosen: Sequence[int]) -> TokenRows:
        """Return only these rows."""
        tokens = {name: [rows[row] for row in chosen] for name, rows in self.tokens.items()}
        rows = np.asarray(chosen, dtype=np.int64)
        return TokenRows(tokens, None if self.labels is None else self.labels[rows])


def _split(flat: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of a column whose rows are concatenated."""
    return np.split(flat.astype(np.int64), np.cumsum(lengths)[:-1]) if len(lengths) else []


def _array(labels: Sequence[Any]) -> NDArray[Any]:
    """Return labels as an array of int64 or float64."""
    found = np.asarray(labels)
    return found.astype(np.float64 if found.dtype.kind == "f" else np.int64)
