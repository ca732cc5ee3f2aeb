"""Records: what each cell yielded, or why it did not; written atomically, one file a cell, validated on load."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from peft_methods import escaping
from peft_methods.building import adapter
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
    the recipe gives them). Predictions stand in a file beside the record. Tokens and passwords are taken out of every text,
    and the user's home is `~`: records are published.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    cell: dict[str, Any]
    status: Status
    identity: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # it names files
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

    def __post_init__(self) -> None:
        for name in ("cell", "message", "quality", "data", "environment", "tuning"):
            object.__setattr__(self, name, escaping.private(getattr(self, name)))

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
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise StoreError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update peft-methods to read it.")
            record = adapter(Record).validate_python(values)
            if not (record.recipe_name and record.method_name) or record.seed < 0:
                raise ValueError("its cell lacks a name or a seed")
            return record
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(f"{path} is no record: {first_line(error)}.") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from None

    def read_predictions(self, record: Record) -> Predictions | None:
        """The per-example predictions of a record, None where it has none. Raises `StoreError` for a file that holds none."""
        path = self.folder / f"{record.identity}.npz"
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                logits, labels = saved["logits"], saved["labels"]
        except Exception as error:  # an archive's, an array's and a disk's errors are all of their own types
            raise StoreError(f"{path} holds no predictions: {first_line(error)}.") from None
        fits = logits.ndim == 2 and logits.dtype.kind == "f" and labels.shape == logits.shape[:1] and labels.dtype.kind in "iu"
        if not fits or not ((labels >= 0) & (labels < logits.shape[1])).all():
            raise StoreError(f"{path} holds no predictions: it needs logits (rows, classes) and labels (rows) that number classes.")
        return Predictions(logits, labels)

    def records(self) -> tuple[list[Record], list[str]]:
        """All records that can be read, and a line for each file that cannot."""
        good, bad = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                good.append(self.read(path))
            except StoreError as error:
                bad.append(str(error))
        return good, bad


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
