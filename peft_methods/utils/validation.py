"""Frozen dataclasses from plain mappings.

Errors name the place of the bad value, what is allowed there and the nearest name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from peft_methods.utils.errors import OptionError, first_line, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return a frozen dataclass from a plain mapping.

    Raises an `OptionError` that names the wrong key, type or value. `where` starts the message: a
    file, or a file and a section.
    """
    try:
        plain = json.dumps(values, default=str, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise OptionError(
            f"{where}: it contains an unreadable value: {first_line(error)}."
        ) from None
    try:
        # from JSON, since strict validation of Python values would refuse mappings for dataclasses
        return adapter(cls).validate_json(plain)  # type: ignore[arg-type]
    except ValidationError as error:
        raise OptionError(f"{where}: {_explain(error, cls, values)}") from None


@cache
def adapter(cls: type[T]) -> TypeAdapter[T]:
    """Return pydantic's validator of a class. Cached: making one takes longer than using it."""
    return TypeAdapter(cls)


def check_fields(cls: type) -> None:
    """Raise `TypeError` if `build` cannot read the types of a dataclass's fields."""
    try:
        TypeAdapter(cls).rebuild(raise_errors=True)
    except (PydanticUserError, NameError) as error:
        raise TypeError(f"its settings cannot be read: {first_line(error)}") from None


def _explain(error: ValidationError, cls: type, values: Mapping[str, Any]) -> str:
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    *sections, key = path = _path_in_file(first["loc"], values)
    dotted = ".".join(path)
    if first["type"] == "unexpected_keyword_argument":
        allowed = _fields_at(cls, sections)
        return f"unknown key {dotted!r}.{nearest(key, allowed)} Allowed here: {', '.join(allowed)}."
    if first["type"] == "missing":
        return f"{dotted!r} is missing; add it."
    given = "a table" if isinstance(first["input"], Mapping) else repr(first["input"])
    same_place = [
        e
        for e in errors
        if e["loc"][: len(path)] == first["loc"][: len(path)]
        # pydantic counts invalid items as missing ones; their own errors are among these
        and not (e["type"] == "too_short" and e["input"])
    ]
    expected = {_expected(e) for e in same_place or [first]}
    return f"{dotted} = {given} should be {' or '.join(sorted(expected))}."


def _expected(error: ErrorDetails) -> str:
    if error["type"] == "too_short":
        least = error["ctx"]["min_length"]
        return f"a list of {least} or more items"
    plain = {
        "dataclass_type": "a section",
        "dict_type": "a section",
        "tuple_type": "a list",
        "string_pattern_mismatch": "letters, digits, '.', '_' and '-'",
    }
    return plain.get(error["type"], error["msg"].removeprefix("Input should be "))


def _path_in_file(loc: Sequence[int | str], values: Any) -> list[str]:
    """Return pydantic's location as a path in the file.

    Steps that only pydantic has (members of a union, positions in a list) are dropped.
    """
    path: list[str] = []
    for step in loc:
        if not isinstance(values, Mapping):
            break
        path.append(str(step))
        values = values.get(step)
    return path


def _fields_at(cls: type, sections: Sequence[str]) -> list[str]:
    for section in sections:
        cls = get_type_hints(cls)[section]
    return [field.name for field in fields(cls)]
