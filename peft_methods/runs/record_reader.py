"""Reading of thousands of records: what many of them have in common is parsed and kept once."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json

from peft_methods.runs.attempts import place_of, without_attempts
from peft_methods.runs.record import SCHEMA_VERSION, Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import RECORD, ForeignFile, Store, StoreError, UnreadableFile
from peft_methods.utils import sanitize
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.files import read_small
from peft_methods.utils.validation import adapter

SEEDS = range(2**32)  # that a recipe may have
SHARED = ("data", "environment")  # whose parts are equal in many records
OWN = ("fingerprint", "files", "message", "stack", "attempts")  # differ between records
SEARCHED_APART = {*SHARED, *OWN}
MOST_PARTS = 10_000  # different parts of records that are looked for in further ones, and texts
WITHOUT_TEXT = {float, int, bool, type(None)}
Values = dict[str, Any]
if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


class _Valid(Record):
    """A record whose values are validated, but not searched for private data."""

    def __post_init__(self) -> None:
        """Do nothing."""


class _Private(Exception):
    """A record holds something private."""


UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError),
    *(RecursionError, PeftMethodsError, _Private),
)


class RecordReader:
    """Reads records as `Store.read` does, several times as fast where many have a lot in common.

    Equal parts of records, such as their specs but for the seed, are the same objects: nothing may
    change them. They are searched for private data once.
    """

    def __init__(self) -> None:
        self._specs: dict[bytes, RunSpec] = {}
        self._parts: dict[bytes, Any] = {}
        self._texts: set[str] = set()  # of other places, which hold nothing private

    def read(self, path: Path) -> Record:
        """Read a record. Raises `StoreError`, which names the file and the problem."""
        try:
            record = self._parsed(read_small(path))
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
        for path in record_paths(folder):
            try:
                good.append(self.read(path))
            except StoreError as error:
                if os.path.lexists(path):  # another session may have removed it
                    is_ours = not isinstance(error, ForeignFile)
                    unfit.append(UnreadableFile(path, str(error), is_ours))
        return without_attempts(good), unfit

    def _parsed(self, content: bytes) -> Record | None:
        """Return a record of the current version, or None. Raises `_Private`."""
        values: Values = from_json(content)
        if values["schema_version"] != SCHEMA_VERSION:
            return None
        spec = self._spec(values.pop("spec"))
        if spec is None:
            return None
        texts = [value for name, value in values.items() if name not in SEARCHED_APART]
        for name in SHARED:
            parts = values[name] = {one: self._part(part) for one, part in values[name].items()}
            texts += [list(parts), *(part for part in parts.values() if isinstance(part, str))]
        self._check(texts, [values.get(name) for name in OWN])
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
            self._check(values)
            self._specs[key] = known = RunSpec.from_json(values)
        if known.seed == seed:
            return known
        recipe = _changed(known.recipe, budget=_changed(known.recipe.budget, seeds=(seed,)))
        return _changed(known, recipe=recipe, seed=seed)

    def _part(self, value: Any) -> Any:
        """Return the same part of an earlier record, if there is one."""
        if not isinstance(value, (dict, list)):
            return value
        key = marshal.dumps(value, 2)  # later versions write equal values in different ways
        known = self._parts.get(key)
        if known is not None:
            return known
        self._check(value)
        if len(self._parts) < MOST_PARTS:
            self._parts[key] = value
        return value

    def _check(self, values: Any, own: Any = ()) -> None:
        """Raise `_Private` if a text of these values is private. `own` is of one record alone."""
        new = _texts(values, self._texts)
        text = "\n".join((*new, *_texts(own)))  # nothing private goes on in another line
        if text and sanitize.may_tell(text) and sanitize.private(text) != text:
            raise _Private
        if len(self._texts) < MOST_PARTS:
            self._texts |= new


def record_paths(folder: Path) -> list[Path]:
    """Return the paths of a folder's records, in the order of their names."""
    return sorted(folder.glob(f"*{RECORD}"), key=lambda path: path.name)


def _changed(value: T, **changes: Any) -> T:
    """Return the dataclass with valid changes. Unlike `replace`, this checks nothing again."""
    made = object.__new__(type(value))
    for name in value.__dataclass_fields__:
        object.__setattr__(made, name, changes[name] if name in changes else getattr(value, name))
    return made


def _texts(values: Any, known: set[str] | frozenset[str] = frozenset()) -> set[str]:
    """Return the texts in JSON values, names included, without those that are known."""
    found, left = set[str](), [values]
    while left:
        value = left.pop()
        if isinstance(value, str):
            if value not in known:
                found.add(value)
            continue
        if isinstance(value, dict):
            if not known.issuperset(value):
                found.update(value)
            value = value.values()
        left += [one for one in value if type(one) not in WITHOUT_TEXT]
    return found


def keys_of(records: Iterable[Record], runs: Iterable[RunSpec]) -> set[str]:
    """Return the keys of the finished records that may be of one of these runs."""
    wanted = {(run.recipe.name, run.method.name, run.seed) for run in runs}
    return {one.key for one in records if one.status == "ok" and place_of(one) in wanted}
