"""The store: a folder of records, one file a cell, written atomically, validated on load; any number of runs may share it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError

from peft_methods.errors import PeftMethodsError, first_line, unknown
from peft_methods.methods import METHODS
from peft_methods.npz import as_npz, from_npz
from peft_methods.quality import Predictions
from peft_methods.records import SCHEMA_VERSION, Record

RECORD, PREDICTIONS, TRAINED = ".json", ".npz", ".safetensors"
SET_ASIDE = "set_aside"
_RECORDS = TypeAdapter(Record)


class StoreError(PeftMethodsError):
    """A record or its folder that cannot be read or written."""


class ForeignFile(StoreError):
    """What another version or another program wrote, which may still use it. (A record cut short is no JSON at all.)"""


@dataclass(frozen=True)
class Unfit:
    """A file of a store that gives no record, and why. `is_ours` tells one that no version can use."""

    path: Path
    reason: str
    is_ours: bool

    def __str__(self) -> str:
        return self.reason


class Store:
    """A folder of records: IDENTITY.json, with IDENTITY.npz (per-example predictions) beside those that have one.

    A source's trained weights stand beside its record too (IDENTITY.safetensors), so that what is built on it can go on later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make sure that records can be written here, before anything is trained. Raises `StoreError`.

        What writers that were killed have left half-written is removed.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise StoreError(
                f"results cannot be written to {self.folder}: {error.strerror}. Choose another folder: --peft-results DIR."
            ) from None
        with self.locked() as alone:
            for scrap in (
                path
                for end in (RECORD, PREDICTIONS, TRAINED)
                if alone
                for path in self.folder.glob(f".*{end}.*")
            ):
                scrap.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """No other run writes here as long as this lasts, nor does anything else that asks for it. The kernel frees a dead run's.

        False where the file system has no locks; single files are whole even then.
        """
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            yield _lock(folder)
        finally:
            os.close(folder)

    def write(
        self, record: Record, predictions: Predictions | None = None, trained: Path | None = None
    ) -> Path:
        """What stands beside the record first, then the record, then earlier failed attempts at this cell go. Raises `StoreError`.

        `trained` is a file of trained weights to keep. A record never points at a file that is not there.
        """
        path = self.folder / f"{record.identity}{RECORD}"
        contents = {} if predictions is None else {PREDICTIONS: as_npz(predictions)}
        try:
            contents |= {} if trained is None else {TRAINED: trained.read_bytes()}
            values = asdict(
                replace(
                    record,
                    files={
                        end: hashlib.sha256(content).hexdigest()
                        for end, content in contents.items()
                    },
                )
            )
            del values["reused"]
            contents[RECORD] = json.dumps(values, indent=1, sort_keys=True).encode()
            with self.locked():
                for end, content in contents.items():
                    _put(content, self.folder / f"{record.identity}{end}")
                self._forget_failures(record)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    def _forget_failures(self, record: Record) -> None:
        """Attempts at the same cell without a result; one that began elsewhere and failed is told by its own run."""
        for path in self.folder.glob(f"{record.key}-*{RECORD}"):
            if path.stem != record.identity:
                path.unlink(missing_ok=True)

    def read(self, path: Path) -> Record:
        """A record, or a `StoreError` that names the file and what is wrong with it."""
        try:
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or "identity" not in values:
                raise ForeignFile(f"{path} is no record: it holds something else.")
            _check_version(values.get("schema_version", 0), path)
            record = _RECORDS.validate_python(values)
            _check_version(record.schema_version, path)  # a "2" is one too
            _check_cell(record, path)
            if path.stem != record.identity:
                raise StoreError(
                    f"{path} is the record of another cell: it holds {record.identity}."
                )
        except (KeyError, TypeError, OverflowError) as error:
            raise StoreError(
                f"{path} is no record: its cell is not whole ({type(error).__name__}: {error})."
            ) from None
        except (ValidationError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} is no record: {str(error).splitlines()[0]}.") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from None
        return record

    def find(self, identity: str) -> Record | None:
        """The record of this name, None where there is none that can be read."""
        with contextlib.suppress(StoreError):
            return self.read(self.folder / f"{identity}{RECORD}")
        return None

    def damage(self, record: Record) -> str:
        """What is wrong with the files beside a record, in words; nothing where all are as they were written."""
        for end, sha256 in record.files.items():
            path = self.folder / f"{record.identity}{end}"
            try:
                content = path.read_bytes()
            except OSError as error:
                return f"{path} cannot be read ({error.strerror})"
            if hashlib.sha256(content).hexdigest() != sha256:
                return f"{path} is not as it was written"
        return ""

    def read_predictions(self, record: Record) -> Predictions | None:
        """The per-example predictions of a record, None where it has none. Raises `StoreError`."""
        return self.read_predictions_of(record.identity)

    def read_predictions_of(self, identity: str) -> Predictions | None:
        """The same by the record's identity."""
        path = self.folder / f"{identity}{PREDICTIONS}"
        if not path.is_file():
            return None
        try:
            return from_npz(path)
        except Exception as error:  # numpy and zipfile have a dozen types for it
            raise StoreError(
                f"{path} holds no predictions that can be read: {first_line(error)}."
            ) from None

    def trained_file(self, record: Record) -> Path | None:
        """The trained weights that are kept of a source."""
        return self.folder / f"{record.identity}{TRAINED}" if TRAINED in record.files else None

    def checkpoints_of(self, key: str) -> Path:
        """Where the checkpoints of the cell with this key stand until it has a record."""
        return self.folder / "checkpoints" / key

    def remove_checkpoints(self, key: str) -> None:
        """All of a cell's."""
        shutil.rmtree(self.checkpoints_of(key), ignore_errors=True)

    def records(self) -> tuple[list[Record], list[Unfit]]:
        """All records that can be read, and each file that cannot. A failed attempt at a cell that also ended well is left out."""
        good, unfit = [], []
        for path in sorted(self.folder.glob(f"*{RECORD}")):
            try:
                good.append(self.read(path))
            except StoreError as error:
                if os.path.lexists(path):  # not taken away by another run in the meantime
                    unfit.append(Unfit(path, str(error), not isinstance(error, ForeignFile)))
        return without_attempts(good), unfit

    def set_aside(self, unfit: Iterable[Unfit]) -> list[str]:
        """Move what no version can use to a folder of its own, and say so for every file; a newer version's stay where they are."""
        return [line for file in unfit if (line := self._moved(file))]

    def _moved(self, file: Unfit) -> str:
        if not file.is_ours:
            return f"{file.reason} It was left where it is."
        aside = self.folder / SET_ASIDE / f"{file.path.stem}.{uuid.uuid4().hex[:8]}{RECORD}"
        try:
            with self.locked():
                if self.find(file.path.stem) is not None or not os.path.lexists(file.path):
                    return ""  # another run has written it anew, or set it aside
                aside.parent.mkdir(exist_ok=True)
                file.path.rename(aside)
        except OSError as error:
            return f"{file.reason} It could not be set aside: {error.strerror}."
        return f"{file.reason} It was set aside as {aside}."


def without_attempts(records: Sequence[Record]) -> list[Record]:
    """The records less the failed attempts at cells that also ended well."""
    failed = any(record.status != "ok" for record in records)
    ended_well = {record.key for record in records if failed and record.status == "ok"}
    return [record for record in records if record.status == "ok" or record.key not in ended_well]


def _check_version(version: object, path: Path) -> None:
    """Raise `ForeignFile` for one that is newer than ours, before anything else of it is judged."""
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ForeignFile(
            f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update peft-methods to read it."
        )


def _check_cell(record: Record, path: Path) -> None:
    """What every reader of a record takes for granted. Raises `KeyError` and the like for a cell that is not whole."""
    recipe = record.cell["recipe"]
    _ = (
        recipe["model"]["source"],
        recipe["data"]["source"],
        recipe["budget"]["epochs"],
        record.seed,
        list(record.cell["stages"]),
    )
    if record.method_name not in METHODS:
        raise ForeignFile(f"{path}: {unknown('method', record.method_name, METHODS)}")


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _put(content: bytes, path: Path) -> None:
    atomically(path, lambda file: file.write(content))


def write_whole(path: Path, text: str) -> None:
    """Write a user's file whole or not at all; what is no file (a pipe, a device) is written to as it is, a link is followed."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        atomically(path, lambda file: file.write(text.encode()))


def atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file beside `path`, sync it, and rename it into place."""
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    handle = os.open(
        scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666
    )  # mkstemp's would be readable by their writer alone
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
