"""Records and predictions read from folders of results and record files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from peft_methods.runs.record import Record
from peft_methods.runs.store import Store, StoreError, without_attempts
from peft_methods.tasks.base import Predictions


class StoredRecords:
    """The records of folders and files, the newest of each fingerprint.

    `folders` maps a fingerprint to the folder that holds the record's predictions.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.unreadable: list[str] = []
        self.folders: dict[str, Path] = {}
        found: dict[str, Record] = {}
        for path in self._files(paths):
            try:
                record = Store(path.parent).read(path)
            except StoreError as error:
                self.unreadable.append(str(error))
                continue
            if (
                record.fingerprint not in found
                or record.finished > found[record.fingerprint].finished
            ):
                found[record.fingerprint], self.folders[record.fingerprint] = record, path.parent
        self.records = without_attempts(list(found.values()))

    def _files(self, paths: Sequence[Path]) -> Iterator[Path]:
        for place in paths:
            if place.is_dir():
                paths = sorted(place.glob("*.json"))
                if not paths:
                    self.unreadable.append(f"{place} holds no records. Give a folder of results.")
                yield from paths
            else:
                yield place


class StoredPredictions(Mapping[str, Predictions]):
    """Predictions by fingerprint, read on demand and not cached.

    Unreadable ones are missing from the mapping, and their errors are listed in `unreadable`.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.unreadable: list[str] = []
        self._folders = folders

    def __getitem__(self, identity: str) -> Predictions:
        try:
            found = Store(self._folders[identity]).read_predictions_of(identity)
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
