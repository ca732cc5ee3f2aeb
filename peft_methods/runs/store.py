"""The store: a folder with one record file per run, written atomically and validated on load.

Any number of sessions may share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft_methods.runs.attempts import without_attempts
from peft_methods.runs.contradictions import contradiction
from peft_methods.runs.predictions import decode_predictions, encode_predictions
from peft_methods.runs.record import SCHEMA_VERSION, Record
from peft_methods.tasks.base import Predictions
from peft_methods.tasks.registry import task_of
from peft_methods.utils.errors import OptionError, PeftMethodsError, first_line
from peft_methods.utils.files import lock_file, read_small, write_bytes

RECORD, PREDICTIONS, TRAINED = ".json", ".npz", ".safetensors"
SET_ASIDE = "set_aside"
NAMES_OF_FINGERPRINT = {"fingerprint", "identity"}  # the second in schema version 1


class StoreError(PeftMethodsError):
    """A record or a folder of records that cannot be read or written."""


class ForeignFile(StoreError):
    """A file of another version, program or user, who may still use it.

    A truncated record is not one of these, since it is not valid JSON.
    """


@dataclass(frozen=True)
class UnreadableFile:
    """A file in a store that is not a readable record, with the reason.

    `is_ours` marks a damaged file that no version can read.
    """

    path: Path
    reason: str
    is_ours: bool

    def __str__(self) -> str:
        return self.reason


class Store:
    """A folder of records: FINGERPRINT.json, and FINGERPRINT.npz for per-example predictions.

    The trained weights of a prerequisite run are kept as FINGERPRINT.safetensors, so that later
    sessions can build on them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Check that records can be written here, before anything is trained. Raises `StoreError`.

        Half-written files of killed processes are removed.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise StoreError(
                f"results cannot be written to {self.folder}: {error.strerror}. "
                "Choose another folder for `results`.",
                setting="results",
            ) from None
        with self.locked() as alone:
            for leftover in (
                path
                for end in (RECORD, PREDICTIONS, TRAINED)
                if alone
                for path in self.folder.glob(f".*{end}.*")
            ):
                leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Context manager: hold the store's lock, so that no other session writes meanwhile.

        Yields False if the file system has no locks; single files are written atomically even then.
        The kernel frees the lock of a dead process.
        """
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            yield lock_file(folder)
        finally:
            os.close(folder)

    def write(
        self, record: Record, predictions: Predictions | None = None, trained: Path | None = None
    ) -> Path:
        """Write the files beside the record, then the record, then delete earlier failed attempts.

        Raises `StoreError`. `trained` is a file of trained weights to keep. A record never refers
        to a file that does not exist.
        """
        path = self.folder / f"{record.fingerprint}{RECORD}"
        contents: dict[str, bytes] = {}
        if predictions is not None:
            task = task_of(record.spec.recipe).name
            contents[PREDICTIONS] = encode_predictions(predictions, task)
        try:
            contents |= {} if trained is None else {TRAINED: trained.read_bytes()}
            files = {end: hashlib.sha256(content).hexdigest() for end, content in contents.items()}
            values = record.to_json() | {"files": files}
            contents[RECORD] = json.dumps(values, indent=1, sort_keys=True).encode()
            with self.locked():
                for end, content in contents.items():
                    write_bytes(content, self.folder / f"{record.fingerprint}{end}")
                self._delete_failures(record)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    def amend(self, fingerprint: str, **changes: Any) -> None:
        """Change fields of a record, and add to its environment. Raises `StoreError`."""
        path = self.folder / f"{fingerprint}{RECORD}"
        record = self.read(path)
        environment = {**record.environment, **changes.pop("environment", {})}
        values = replace(record, environment=environment, **changes).to_json()
        try:
            with self.locked():
                write_bytes(json.dumps(values, indent=1, sort_keys=True).encode(), path)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from None

    def _delete_failures(self, record: Record) -> None:
        """Delete earlier failed records of this run.

        Concurrent sessions report their own failures.
        """
        for path in self.folder.glob(f"{record.key}-*{RECORD}"):
            if path.stem != record.fingerprint:
                path.unlink(missing_ok=True)

    def read(self, path: Path) -> Record:
        """Read a record. Raises `StoreError`, which names the file and the problem."""
        try:
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or not values.keys() & NAMES_OF_FINGERPRINT:
                raise ForeignFile(f"{path} is not a valid record: it has no fingerprint.")
            _check_version(values.get("schema_version"), path)
            record = Record.from_json(values)
            if path.stem != record.fingerprint:
                raise StoreError(f"{path} holds the record of another run: {record.fingerprint}.")
        except OptionError as error:
            raise ForeignFile(f"{path}: {error}") from None
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise StoreError(
                f"{path} is not a valid record: its specification is incomplete "
                f"({type(error).__name__}: {error})."
            ) from None
        except (ValueError, RecursionError) as error:
            first = str(error).splitlines()[0]
            raise StoreError(f"{path} is not a valid record: {first}.") from None
        except OSError as error:
            # Nothing is known about its content: it may be a valid record of another user.
            raise ForeignFile(f"{path} cannot be read: {error.strerror}.") from None
        return record

    def find(self, fingerprint: str) -> Record | None:
        """Return the record with this fingerprint, or None if it cannot be read."""
        with contextlib.suppress(StoreError):
            return self.read(self.folder / f"{fingerprint}{RECORD}")
        return None

    def damage(self, record: Record) -> str:
        """Describe how a record and the files beside it differ from what was written, or ''.

        Each file must have the hash that the record gives, and the record the scores of its
        predictions.
        """
        return self.damage_of_files(record, record.files) or self.contradiction(record)

    def damage_of_files(self, record: Record, suffixes: Iterable[str]) -> str:
        """Describe damage to the files with these suffixes, or ''. Others may be missing."""
        for end in suffixes:
            name = f"{record.fingerprint}{end}"
            try:
                content = self.content(name)
            except OSError as error:
                return f"{self.folder / name} cannot be read ({error.strerror})"
            if hashlib.sha256(content).hexdigest() != record.files[end]:
                return f"{self.folder / name} has changed since it was written"
        return ""

    def contradiction(self, record: Record) -> str:
        """Describe a score in a record that its predictions contradict, or ''."""
        try:
            predictions = self.read_predictions(record)
            found = "" if predictions is None else contradiction(record, predictions)
        except StoreError as error:
            return str(error).rstrip(".")
        return f"{self.folder / record.fingerprint}{RECORD} gives {found}" if found else ""

    def read_predictions(self, record: Record) -> Predictions | None:
        """Read the per-example predictions of a record, or None if it was written without any.

        Raises `StoreError`, also if they were deleted.
        """
        found = self.read_predictions_of(record.fingerprint)
        if found is None and PREDICTIONS in record.files:
            raise StoreError(f"{self.folder / record.fingerprint}{PREDICTIONS} is missing.")
        return found

    def read_predictions_of(self, fingerprint: str) -> Predictions | None:
        """Read the per-example predictions by the record's fingerprint."""
        name = f"{fingerprint}{PREDICTIONS}"
        try:
            return decode_predictions(self.content(name))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except Exception as error:  # numpy and zipfile raise a dozen types
            raise StoreError(
                f"{self.folder / name} holds no readable predictions: {first_line(error)}."
            ) from None

    def content(self, name: str) -> bytes:
        """Return the content of the file with this name."""
        return read_small(os.path.join(self.folder, name))

    def trained_file(self, record: Record) -> Path | None:
        """Return the path of a prerequisite's kept weights, or None."""
        return self.folder / f"{record.fingerprint}{TRAINED}" if TRAINED in record.files else None

    def checkpoints_of(self, key: str) -> Path:
        """Return the folder for checkpoints of the run with this key. It is removed at the end."""
        return self.folder / "checkpoints" / key

    def remove_checkpoints(self, key: str) -> None:
        """Remove all checkpoints of the run with this key."""
        shutil.rmtree(self.checkpoints_of(key), ignore_errors=True)

    def records(self) -> tuple[list[Record], list[UnreadableFile]]:
        """Read all records, and list the files that are not readable records.

        A failed attempt is left out if the same run also succeeded.
        """
        good, unfit = [], []
        for path in sorted(self.folder.glob(f"*{RECORD}")):
            try:
                good.append(self.read(path))
            except StoreError as error:
                if os.path.lexists(path):  # another session may have removed it
                    unfit.append(
                        UnreadableFile(path, str(error), not isinstance(error, ForeignFile))
                    )
        return without_attempts(good), unfit

    def set_aside(self, unfit: Iterable[UnreadableFile]) -> list[str]:
        """Move files that no version can read to a separate folder; describe each file.

        Files of newer versions, other programs and other users stay where they are.
        """
        return [line for file in unfit if (line := self._set_aside(file))]

    def _set_aside(self, file: UnreadableFile) -> str:
        if not file.is_ours:
            return f"{file.reason} It was left where it is."
        aside = self.folder / SET_ASIDE / f"{file.path.stem}.{uuid.uuid4().hex[:8]}{RECORD}"
        try:
            with self.locked():
                if self.find(file.path.stem) is not None or not os.path.lexists(file.path):
                    return ""  # another session has replaced it or set it aside
                aside.parent.mkdir(exist_ok=True)
                file.path.rename(aside)
        except OSError as error:
            return f"{file.reason} It could not be set aside: {error.strerror}."
        return f"{file.reason} It was set aside as {aside}."


def _check_version(version: object, path: Path) -> None:
    """Raise `ForeignFile` if the schema version is newer than ours, before other checks."""
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"schema_version = {version!r} should be a whole number >= 1")
    if version > SCHEMA_VERSION:
        raise ForeignFile(
            f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; "
            "update peft-methods to read it."
        )
