"""A data source as read: its columns by split, before any task has looked at the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

ClassNames = dict[str, tuple[str, ...]]  # by column


def find_column(name: str, columns: Sequence[str]) -> str | None:
    """Return the column of this name, else the only one that differs in case or blanks alone."""
    if name in columns:
        return name
    alike = [column for column in columns if _plain(column) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return name.strip().casefold()


class RawTable:
    """The rows of one split, by column. Columns become lists when they are asked for."""

    def __init__(self, columns: Mapping[str, Sequence[object]] | DataFrame) -> None:
        self._columns: Any = columns

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return list(self._columns)

    def values(self, column: str) -> list[Any]:
        """Return the values of a column, found by `find_column`, as Python objects."""
        found: Any = self._columns[find_column(column, self.columns)]
        return found if isinstance(found, list) else found.tolist()


@dataclass(frozen=True)
class RawData:
    """The tables of a source by split, or one under `all`, and the class names it declares."""

    tables: dict[str, RawTable]
    class_names: ClassNames = field(default_factory=dict)

    @property
    def first(self) -> RawTable:
        """The table whose columns decide: that of train, or the only one."""
        return self.tables.get("train") or next(iter(self.tables.values()))
