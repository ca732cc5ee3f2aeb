"""What a display shows while runs train: the session, a table of methods, and the active runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import nlargest

from tabulate import tabulate

from peft_methods.utils.sanitize import visible

NARROWEST_LABEL = 12
FEWEST_COLUMNS = 2  # of the table: methods, and how many of their runs are done
SHARE_OF_ACTIVE = 3  # active runs have at least a third of a screen that is too small


@dataclass(frozen=True)
class TableRow:
    """A row of the table. `changed` grows with each change of any row: the newest is highest."""

    cells: tuple[str, ...]
    changed: int = 0


@dataclass(frozen=True)
class Live:
    """The present state of a session.

    `done` says how many runs are done, `head` what else concerns the session, the most important
    first. `active` has the name of each active run and the parts of its state; `more` are not
    listed.
    """

    done: str
    head: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[TableRow, ...] = ()
    active: tuple[tuple[str, tuple[str, ...]], ...] = ()
    more: int = 0

    def without_runs(self) -> Live:
        """Return the state without what is going on, to be left when the session ends."""
        return replace(self, head=(), active=(), more=0)


def text_of(live: Live, width: int, height: int | None = None) -> list[str]:
    """Format the state as lines that are at most `width` wide, at most `height` of them."""
    active = [fitted(name, parts, width) for name, parts in live.active]
    active += [f"and {live.more} more"[:width]] if live.more > 0 else []
    room = None if height is None else max(0, height - 1)
    if room is not None and len(active) + len(live.rows) + 1 > room:
        active = active[: max(1, room // SHARE_OF_ACTIVE, room - len(live.rows) - 1)]
    table = _table(live, width, None if room is None else room - len(active))
    head = fitted(live.done, live.head, width, between=" · ") if live.head else live.done[:width]
    return [visible(line) for line in (head, *table, *active)][:height]


def _table(live: Live, width: int, height: int | None) -> list[str]:
    """Format the table; where it is too high, the rows that changed last, and how many more."""
    rows = list(live.rows)
    if not rows or (height is not None and height < 2):
        return []
    left_out = 0 if height is None else max(0, len(rows) + 1 - height)
    if left_out:
        left_out += 1  # for the line that says so
        by_change = partial(_by_change, rows)
        rows = [
            rows[at] for at in sorted(nlargest(len(rows) - left_out, range(len(rows)), by_change))
        ]
    lines = _fitting([live.headings, *(row.cells for row in rows)], width)
    return [*lines, f"and {left_out} more methods"[:width]] if left_out else lines


def _by_change(rows: Sequence[TableRow], at: int) -> tuple[int, int]:
    """Return a key that is highest for the row that changed last; then the first ones follow."""
    return rows[at].changed, -at


def _fitting(cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """Format cells with as many of the first columns as fit; names are shortened at last."""
    for columns in range(len(cells[0]), FEWEST_COLUMNS - 1, -1):
        chosen = [list(row[:columns]) for row in cells]
        lines = _aligned(chosen)
        if (excess := max(map(len, lines)) - width) <= 0:
            return lines
    longest = max(NARROWEST_LABEL, max(len(row[0]) for row in chosen) - excess)
    return [line[:width] for line in _aligned([[shortened(r[0], longest), *r[1:]] for r in chosen])]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    alignment = ("left", *["right"] * (len(cells[0]) - 1))
    text = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=alignment)
    return [line.rstrip() for line in text.splitlines()]


def shortened(name: str, room: int) -> str:
    """Shorten a name in the middle."""
    if len(name) <= room:
        return name
    return f"{name[: room - room // 2 - 1]}…{name[len(name) - room // 2 :]}"


def fitted(name: str, parts: Sequence[str], width: int, *, between: str = "  ") -> str:
    """Join the name and as many of the first parts as fit into `width`.

    A name that is too long even for the first part is shortened in the middle.
    """
    kept = list(parts)
    while len(kept) > 1 and len(between.join([name, *kept])) > width:
        kept.pop()
    room = max(NARROWEST_LABEL, width - len(between.join(["", *kept])))
    return between.join([shortened(name, room), *kept])[:width]
