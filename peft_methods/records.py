"""Records: what each cell yielded, or why it did not; written atomically, one file a cell, validated on load."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from peft_methods.cells import Cell
from peft_methods.errors import PeftMethodsError, first_line
from peft_methods.quality import Predictions

SCHEMA_VERSION = 1
Status = Literal["ok", "oom", "failed", "timeout", "crashed", "skipped"]


@dataclass(frozen=True)
class Evidence:
    """What the run itself found out about its weights, for the validity rules. Names of parameters.

    `expected_trainable` is the closed form for the method alone, None where there is none. `head_parameters` is the size of
    the head, trained or not; `quantized` counts the tensors held in 4 bits, `head_quantized` those of them in the head.
    """

    expected_trainable: int | None = None
    frozen_changed: tuple[str, ...] = ()
    unmoved: tuple[str, ...] = ()
    frozen_checked: int = 0
    moved_checked: int = 0
    head_parameters: int | None = None
    quantized: int | None = None
    head_quantized: int = 0


@dataclass(frozen=True)
class Record:
    """One cell's outcome. `metrics` hold raw figures in base units under the names of METRICS; missing is None.

    `epochs` is the curve; `quality` the test set's precision, recall and F1 per class and its confusion matrix
    (with random weights there is none, nor anything of validation in the curve);
    `data` and `environment` are what was trained on and where; `tuning` says how its hyperparameters were found (None: as
    the recipe gives them). Predictions stand in a file beside the record.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    cell: dict[str, Any]
    status: Status
    identity: str
    message: str = ""
    is_source: bool = False
    metrics: dict[str, float | None] = field(default_factory=dict)
    epochs: tuple[dict[str, float | None], ...] = ()
    best_epoch: int | None = None
    quality: dict[str, Any] | None = None
    evidence: Evidence = Evidence()
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] | None = None
    finished: float = field(default_factory=time.time)
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return str(self.cell["recipe"]["name"])

    @property
    def method_name(self) -> str:
        """The method's name."""
        return str(self.cell["method"]["name"])

    @property
    def seed(self) -> int:
        """The cell's seed."""
        return int(self.cell["seed"])


class StoreError(PeftMethodsError):
    """A record or its folder that cannot be read or written."""


def without_result(cell: Cell, status: Status, message: str, **more: Any) -> Record:
    """The record of a cell that yielded nothing, and why."""
    return Record(cell.spec(), status, f"{cell.key}-{status}", message, cell.is_source, **more)


class Store:
    """A folder of records: IDENTITY.json, with IDENTITY.npz (per-example predictions) beside those that have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make sure that records can be written here, before anything is trained. Raises `StoreError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise StoreError(
                f"results cannot be written to {self.folder}: {error.strerror}. Choose another folder: --peft-results DIR."
            ) from None

    def write(self, record: Record, predictions: Predictions | None = None) -> Path:
        """Predictions first, then the record: a record never points at a file that is not there."""
        path = self.folder / f"{record.identity}.json"
        try:
            if predictions is not None:
                atomically(path.with_suffix(".npz"), lambda file: _save_predictions(file, predictions))
            text = json.dumps(asdict(record), indent=1, sort_keys=True)
            atomically(path, lambda file: file.write(text.encode()))
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    def read(self, path: Path) -> Record:
        """A record, or a `StoreError` that names the file and what is wrong with it."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.get("schema_version", 0) if isinstance(values, dict) else 0
            if version > SCHEMA_VERSION:
                raise StoreError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update peft-methods to read it.")
            return _adapter().validate_python(values)
        except (ValidationError, ValueError) as error:
            raise StoreError(f"{path} is no record: {str(error).splitlines()[0]}.") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from None

    def read_predictions(self, record: Record) -> Predictions | None:
        """The per-example predictions of a record, None where it has none."""
        return self.read_predictions_of(record.identity)

    def read_predictions_of(self, identity: str) -> Predictions | None:
        """The same by the record's identity. Raises `StoreError` for a file that is not whole."""
        path = self.folder / f"{identity}.npz"
        if not path.is_file():
            return None
        try:
            with zipfile.ZipFile(path) as saved:
                return Predictions(_array(saved.read("logits.npy")), _array(saved.read("labels.npy")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(f"{path} holds no predictions that can be read: {first_line(error)}.") from None

    def records(self) -> tuple[list[Record], list[str]]:
        """All records that can be read, and a line for each file that cannot."""
        good, bad = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                good.append(self.read(path))
            except StoreError as error:
                bad.append(str(error))
        return good, bad


def _array(file: bytes) -> NDArray[Any]:
    """An .npy file. np.load takes most of its time to parse the header, which is the same in thousands of files."""
    start = 10 + int.from_bytes(file[8:10], "little")
    shape, fortran, dtype = _header(file[8:start])
    if file[:8] != b"\x93NUMPY\x01\x00" or fortran:
        raise ValueError("no array as np.save writes it")
    return np.frombuffer(file, dtype, offset=start).reshape(shape)


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))


@cache
def _adapter() -> TypeAdapter[Record]:
    """Made once: making one takes as long as reading hundreds of records."""
    return TypeAdapter(Record)


def _save_predictions(file: IO[bytes], predictions: Predictions) -> None:
    np.savez_compressed(
        file,
        logits=predictions.logits,
        probabilities=predictions.probabilities,
        predicted=predictions.predicted,
        labels=predictions.labels,
    )


def atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file beside `path`, sync it, and rename it into place."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
