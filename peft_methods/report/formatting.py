"""Formatting of recorded values for reports: hides home folders, avoids needless digits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from peft_methods.analysis.comparison import Row
from peft_methods.estimation.results import Interval
from peft_methods.tasks.metrics import seconds_decimals

MISSING = "–"
HOME = re.compile(r"(/home/[^/\s'\"]+|/Users/[^/\s'\"]+|/root)(?=[/\s'\":,.]|$)")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def seconds_digits(rows: Iterable[Row]) -> int:
    """Number of decimals for a column of training times: what the shortest time needs."""
    return seconds_decimals(
        min(
            (row.mean("train_seconds") for row in rows if "train_seconds" in row.metrics),
            default=1.0,
        )
    )


def trainable_text(row: Row) -> str:
    """Format a method's trainable parameters and those of the head: '73,728 + 148,610'.

    The method's alone where there is no new head; a dash if they were not counted.
    """
    if not {"method_parameters", "head_parameters"} <= row.metrics.keys():
        return MISSING
    own, head = row.mean("method_parameters"), row.mean("head_parameters")
    return f"{own:,.0f} + {head:,.0f}" if head else f"{own:,.0f}"


def have_heads(rows: Iterable[Row]) -> bool:
    """Whether methods train a new head, or nothing was counted; a language model has none."""
    counts = [row.mean("head_parameters") for row in rows if "head_parameters" in row.metrics]
    return any(counts) or not counts


def without_home(text: str) -> str:
    """Replace home folders in the text by `~`."""
    return HOME.sub("~", text)


def is_folder(source: str) -> bool:
    """Whether a model or data source is a local path, as opposed to a hub id or bundled name."""
    if "/" not in source and "\\" not in source:
        return False
    return (
        source.startswith(("/", "./", "../", "~"))
        or bool(DRIVE.match(source))
        or source.count("/") > 1
    )


def source_name(source: str) -> str:
    """Return a hub id or bundled name unchanged, and of a local path its last part only."""
    if not is_folder(source):
        return source
    path = PureWindowsPath(source) if "\\" in source else PurePosixPath(source)
    return path.name or source


def format_setting(value: Any) -> str:
    """Format a setting: no quotes, lists joined by commas, folders by name."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_setting, value))
    return without_home(source_name(value) if isinstance(value, str) else str(value))


def format_time(unix: float) -> str:
    """Format a Unix time in UTC: '2026-01-31 12:00:00 UTC'."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: {'budget': {'epochs': 2}} -> {'budget.epochs': 2}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flatten(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return found


def size(value: float) -> str:
    """Format bytes with three digits: '812 MB' or '3.24 GB'."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * factor:
            scaled = value / factor
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return f"{value:.0f} B"


def millions(count: int) -> str:
    """Format a count with three digits: '739k', '1.24M' or '7.62B'."""
    for sign, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * factor:
            scaled = count / factor
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{sign}"
    return str(count)


def between(interval: Interval) -> str:
    """Format an interval of bytes: '3.24 GB (3.18–3.31)'."""
    expected, low, high = (size(one) for one in (interval.expected, interval.low, interval.high))
    if low == high == expected:
        return expected
    number, unit = expected.split()
    if all(one.endswith(f" {unit}") for one in (low, high)):
        low, high = low.split()[0], high.split()[0]
    return f"{number} {unit} ({low}–{high})"
