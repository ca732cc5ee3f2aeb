"""How values of records are written in a report: no home folders, no needless digits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from peft_methods.comparing import Row
from peft_methods.metrics import seconds_decimals

NOTHING = "–"
HOME = re.compile(r"(/home/[^/\s'\"]+|/Users/[^/\s'\"]+|/root)(?=[/\s'\":,.]|$)")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def seconds_digits(rows: Iterable[Row]) -> int:
    """Decimals for a column of training times: as many as its shortest needs."""
    return seconds_decimals(
        min(
            (row.mean("train_seconds") for row in rows if "train_seconds" in row.figures),
            default=1.0,
        )
    )


def without_home(text: str) -> str:
    """The text with people's home folders as `~`."""
    return HOME.sub("~", text)


def is_folder(source: str) -> bool:
    """Whether a model or data source is a place on the machine that it was used on, and not a name that holds anywhere."""
    if "/" not in source and "\\" not in source:
        return False
    return (
        source.startswith(("/", "./", "../", "~"))
        or bool(DRIVE.match(source))
        or source.count("/") > 1
    )


def source_name(source: str) -> str:
    """A hub id or embedded name as it is; of a folder its last part, since nobody else has the rest."""
    if not is_folder(source):
        return source
    path = PureWindowsPath(source) if "\\" in source else PurePosixPath(source)
    return path.name or source


def plain(value: Any) -> str:
    """A setting as text: no quotes, lists with commas, folders by their names."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    return without_home(source_name(value) if isinstance(value, str) else str(value))


def moment(unix: float) -> str:
    """A time as people write it, in UTC."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'budget': {'epochs': 2}} -> {'budget.epochs': 2}"""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flattened(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return found
