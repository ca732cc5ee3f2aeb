"""Records read from folders of results and record files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.runs.attempts import without_attempts
from peft_methods.runs.record import Record
from peft_methods.runs.record_reader import RecordReader, record_paths
from peft_methods.runs.store import PREDICTIONS, StoreError
from peft_methods.runs.stored_predictions import KeptPredictions, StoredPredictions, StoreWithKept
from peft_methods.runs.verified import verified_runs
from peft_methods.utils.words import counted

TO_DO = "Restore it from a copy, or train the run again: the same command trains it anew."


class StoredRecords:
    """The records of folders and files, the newest of each fingerprint.

    A record that does not fit its predictions counts as failed, with the reason as its message.
    `damaged` names these runs, and the folders that hold no predictions at all.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.unreadable: list[str] = []
        self.damaged: list[str] = []
        self._folders: dict[str, Path] = {}  # of each record's predictions, by fingerprint
        self._kept = KeptPredictions()
        found: dict[str, Record] = {}
        reader = RecordReader()
        for folder, path in self._files(paths):
            try:
                record = reader.read(path)
            except StoreError as error:
                self.unreadable.append(str(error))
                continue
            if (
                record.fingerprint not in found
                or record.finished > found[record.fingerprint].finished
            ):
                found[record.fingerprint], self._folders[record.fingerprint] = record, folder
        self.records = without_attempts(self._verified(found.values()))
        self.predictions = StoredPredictions(self._folders, self._kept)

    def _files(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
        """Yield the folder and the path of each record."""
        for place in paths:
            if place.is_dir():
                found = record_paths(place)
                if not found:
                    self.unreadable.append(f"{place} holds no records. Give a folder of results.")
                yield from ((place, path) for path in found)
            else:
                yield place.parent, place

    def _verified(self, records: Iterable[Record]) -> list[Record]:
        """Return the records, those that do not fit their predictions as failed ones."""
        by_folder: dict[Path, list[Record]] = {}
        for record in records:
            by_folder.setdefault(self._folders[record.fingerprint], []).append(record)
        verified = []
        for folder, own in by_folder.items():
            if self._are_alone(folder, own):
                verified += own
                continue
            with verified_runs(StoreWithKept(folder, self._kept)) as runs:
                verified += [self._whole(record, runs.damage(record)) for record in own]
        return verified

    def _are_alone(self, folder: Path, records: Sequence[Record]) -> bool:
        """Whether records were copied without any predictions, as they may be to publish them."""
        lacking = sum(PREDICTIONS in record.files for record in records)
        if not lacking or any(True for _ in folder.glob(f"*{PREDICTIONS}")):
            return False
        self.damaged.append(
            f"{folder} holds no predictions (*{PREDICTIONS}), so the scores of "
            f"{counted(lacking, 'record')} could not be verified, and there are no intervals and "
            "comparisons of them. Copy the predictions there too."
        )
        return True

    def _whole(self, record: Record, damage: str) -> Record:
        """Return the record, or, if it is damaged, a failed one with the reason."""
        if not damage:
            return record
        self.damaged.append(
            f"{record.recipe_name}, {record.method_name} seed {record.seed} is left out: {damage}. "
            f"{TO_DO}"
        )
        del self._folders[record.fingerprint]
        message = f"left out, since {damage}. {TO_DO}"
        return replace(
            record, status="failed", message=message, metrics={}, epochs=(), quality=None
        )
