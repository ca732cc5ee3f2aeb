"""Reading of thousands of records: what many of them have in common is parsed and kept once."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from peft_methods.runs.record import SCHEMA_VERSION, Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import RECORD, ForeignFile, Store, StoreError, UnreadableFile
from peft_methods.utils import sanitize
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.validation import adapter

SEEDS = range(2**32)  # that a recipe may have
MOST_PARTS = 10_000  # different parts of records that are looked for in further ones
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError),
    *(RecursionError, PeftMethodsError),
)
Values = dict[str, Any]


class _Valid(Record):
    """A record whose values are validated, but not searched for private data."""

    def __post_init__(self) -> None:
        """Do nothing."""


class _JsonText(str):
    """A JSON text without escapes, which therefore contains every text of the record."""

    __slots__ = ()
    __repr__ = str.__str__


class RecordReader:
    """Reads records as `Store.read` does, several times as fast where many have a lot in common.

    Equal parts of records, such as their specs but for the seed, are the same objects: nothing may
    change them.
    """

    def __init__(self) -> None:
        self._specs: dict[bytes, RunSpec] = {}
        self._parts: dict[bytes, Any] = {}

    def read(self, path: Path) -> Record:
        """Read a record. Raises `StoreError`, which names the file and the problem."""
        try:
            record = self._parsed(path.read_bytes())
        except UNREADABLE:
            record = None  # the store says what is wrong with it
        if record is None or path.stem != record.fingerprint:
            return Store(path.parent).read(path)
        return record

    def records(self, folder: Path) -> tuple[list[Record], list[UnreadableFile]]:
        """Read all records of a folder, and list the files that are not readable records.

        A failed attempt is left out if the same run also succeeded.
        """
        good, unfit = [], []
        for path in sorted(folder.glob(f"*{RECORD}")):
            try:
                good.append(self.read(path))
            except StoreError as error:
                if os.path.lexists(path):  # another session may have removed it
                    is_ours = not isinstance(error, ForeignFile)
                    unfit.append(UnreadableFile(path, str(error), is_ours))
        return without_attempts(good), unfit

    def _parsed(self, content: bytes) -> Record | None:
        """Return a record of the current version that holds nothing private; None for others."""
        values = from_json(content)
        if values["schema_version"] != SCHEMA_VERSION or _may_tell(content, values):
            return None
        spec = self._spec(values["spec"])
        if spec is None:
            return None
        for name in ("data", "environment"):
            values[name] = {key: self._part(value) for key, value in values[name].items()}
        valid = adapter(_Valid).validate_python({**values, "spec": spec})
        record = object.__new__(Record)
        vars(record).update(vars(valid))
        return record

    def _spec(self, values: Values) -> RunSpec | None:
        """Return a spec: the one of another seed with this seed, if it is known."""
        seed = values["seed"]
        if type(seed) is not int or seed not in SEEDS:
            return None
        key = marshal.dumps({**values, "seed": None}, 2)
        known = self._specs.get(key)
        if known is None:
            self._specs[key] = known = RunSpec.from_json(values)
        if known.seed == seed:
            return known
        recipe = replace(known.recipe, budget=replace(known.recipe.budget, seeds=(seed,)))
        return replace(known, recipe=recipe, seed=seed)

    def _part(self, value: Any) -> Any:
        if not isinstance(value, (dict, list)):
            return value
        key = marshal.dumps(value, 2)  # later versions write equal values in different ways
        if len(self._parts) < MOST_PARTS:
            return self._parts.setdefault(key, value)
        return self._parts.get(key, value)


def _may_tell(content: bytes, values: Values) -> bool:
    """Whether a record may hold something private, or was not written by this package."""
    text = content.decode()
    if "\\" in text:
        return sanitize.may_tell(values) and sanitize.private(values) != values
    return sanitize.may_tell(_JsonText(text)) and sanitize.private(text) != text


def without_attempts(records: Sequence[Record]) -> list[Record]:
    """Drop the failed attempts at runs that also succeeded.

    A run's key takes long to compute. It is compared only where recipe, method and seed are equal.
    """
    good = {_place(record) for record in records if record.status == "ok"}
    twice = good & {_place(record) for record in records if record.status != "ok"}
    found = [record for record in records if record.status == "ok" and _place(record) in twice]
    ended_well = {record.key for record in found}
    return [
        record
        for record in records
        if record.status == "ok" or _place(record) not in twice or record.key not in ended_well
    ]


def keys_of(records: Iterable[Record], runs: Iterable[RunSpec]) -> set[str]:
    """Return the keys of the finished records that may be of one of these runs."""
    wanted = {(run.recipe.name, run.method.name, run.seed) for run in runs}
    return {one.key for one in records if one.status == "ok" and _place(one) in wanted}


def _place(record: Record) -> tuple[str, str, int]:
    return record.recipe_name, record.method_name, record.seed
