"""Predictions of thousands of stored runs: each file is read once, as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from peft_methods.runs.store import Store, StoreError
from peft_methods.tasks.base import Predictions

Place = tuple[Path, str]  # folder, and fingerprint of the record
MOST_BYTES = 2**29  # of predictions in memory; further ones are read again each time


class KeptPredictions:
    """Predictions in memory, up to `limit` bytes. Only those are kept that are arrays alone.

    Equal labels are kept once: the runs of one data set share them.
    """

    def __init__(self, limit: int = MOST_BYTES) -> None:
        self._left = limit
        self._labels: dict[bytes, Any] = {}
        self._found: dict[Place, Predictions] = {}

    def get(self, place: Place) -> Predictions | None:
        """Return the predictions of this file, if they are kept."""
        return self._found.get(place)

    def keep(self, place: Place, predictions: Predictions) -> Predictions:
        """Keep the predictions if there is room, and return them."""
        values = vars(predictions).values()
        if place in self._found or not all(isinstance(one, np.ndarray) for one in values):
            return predictions
        size = sum(one.nbytes for one in values) - predictions.labels.nbytes
        if size > self._left:
            return predictions
        self._left -= size
        labels = self._labels.setdefault(predictions.labels.tobytes(), predictions.labels)
        kept: Any = replace(predictions, labels=labels)  # type: ignore[type-var]
        self._found[place] = kept
        return predictions


class StoreWithKept(Store):
    """A store that is only read, and that remembers the predictions that were read."""

    def __init__(self, folder: Path, kept: KeptPredictions) -> None:
        super().__init__(folder)
        self._kept = kept
        self._last = "", b""

    def content(self, name: str) -> bytes:
        """Return the content of a file, which is read once if it is asked for twice in a row."""
        if self._last[0] != name:
            self._last = name, super().content(name)
        return self._last[1]

    def read_predictions_of(self, fingerprint: str) -> Predictions | None:
        """Read the per-example predictions by the record's fingerprint, or return the kept ones."""
        place = self.folder, fingerprint
        if (known := self._kept.get(place)) is not None:
            return known
        found = super().read_predictions_of(fingerprint)
        return None if found is None else self._kept.keep(place, found)


class StoredPredictions(Mapping[str, Predictions]):
    """Predictions by fingerprint, read on demand. `folders` has the folder of each.

    Unreadable ones are missing from the mapping, and their errors are listed in `unreadable`.
    """

    def __init__(self, folders: Mapping[str, Path], kept: KeptPredictions | None = None) -> None:
        self.unreadable: list[str] = []
        self._folders, self._kept = folders, kept or KeptPredictions()

    def __getitem__(self, identity: str) -> Predictions:
        folder = self._folders[identity]
        if (known := self._kept.get((folder, identity))) is not None:
            return known
        try:
            found = StoreWithKept(folder, self._kept).read_predictions_of(identity)
        except StoreError as error:
            self.unreadable.append(str(error))
            found = None
        if found is None:
            raise KeyError(identity)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)
