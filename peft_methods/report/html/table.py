"""A table of the HTML report as plain values. All text is formatted before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A cell of a table.

    Columns are sorted by `sort`, the raw value; None means missing and always comes last. `share`
    is the length of a bar in 0..1. `span` has the start, end and middle of an interval, as
    fractions of the column's axis.
    """

    text: str
    sort: float | str | None = None
    share: float | None = None
    span: tuple[float, float, float] | None = None
    is_best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: its title, its colour in the charts, and its cells."""

    title: str
    items: tuple[Item, ...]
    color: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table. `about` is the heading of the first column, `headings` has those of the others.

    Columns in `texts` are left-aligned. `parts` are titles and positions of lines that belong
    together; a page can fold them.
    """

    about: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    texts: frozenset[str] = frozenset()
    parts: tuple[tuple[str, Sequence[int]], ...] = ()

    @property
    def bodies(self) -> tuple[tuple[str, tuple[Line, ...]], ...]:
        """The parts with their lines; without any, one part that has no title."""
        if not self.parts:
            return (("", self.lines),)
        return tuple((title, tuple(self.lines[at] for at in own)) for title, own in self.parts)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each column: "text" or "number"."""
        return tuple("text" if heading in self.texts else "number" for heading in self.headings)
