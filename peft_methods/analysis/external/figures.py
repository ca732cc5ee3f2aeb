"""The texts of one column as figures in base units. A cell that cannot be read costs itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from peft_methods.analysis.external.cell_text import figure_text, is_out_of_memory
from peft_methods.analysis.external.columns import TEXT, Column
from peft_methods.analysis.external.headers import Meaning
from peft_methods.utils.units import (
    Quantity,
    UnitError,
    is_missing,
    parse,
    parse_series,
)

PERCENT = r"~?\d{1,3}(?:\.\d+)?\s*%"
COUNT_AND_SHARE = re.compile(rf"(?P<count>[^%()|]+?)\s*[(|/\[]\s*(?P<share>{PERCENT})\s*[)\]]?")
SHARE_AND_COUNT = re.compile(rf"(?P<share>{PERCENT})\s*[(|/\[]\s*(?P<count>[^%()]+?)\s*[)\]]?")
COUNT_OF_TOTAL = re.compile(
    r"(?P<count>[^/%()]*\d[^/%()]*?)\s*(?:/|\bof\b)\s*(?P<total>[^/%()]*\d[^/%()]*)"
)
BYTES_FROM = 1e8  # a bare memory from here on can be in bytes only: as MB it would be 100 TB
MOST_NAMED = 3  # bad cells of a column that are named one by one
COUNTED = {1e3: "K", 1e6: "M", 1e9: "B"}  # units of headers, as messages write them


@dataclass
class Figures:
    """One column's values by row: quantities in base units, series of them, or texts.

    `shares` and `totals` are those that stand beside the counts; `memory_ran_out` are the rows that
    say so; `remarks` name the cells that could not be read.
    `also` are the headers of other columns that the values are from.
    """

    column: Column
    header: str
    values: list[Any]
    shares: list[Quantity | None] = field(default_factory=list)
    totals: list[Quantity | None] = field(default_factory=list)
    memory_ran_out: set[int] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    lacks_unit: bool = False
    also: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no cell holds a value."""
        return not any(value not in (None, "", ()) for value in self.values)


def figures_of(header: str, meaning: Meaning, texts: Sequence[str]) -> Figures:
    """Read a column's cells in the given meaning. Never raises: what is bad is in `remarks`."""
    column, found = meaning.column, Figures(meaning.column, header, [])
    if column.kind == TEXT:
        found.values = ["" if is_missing(text) else text.strip() for text in texts]
        return found
    bad: dict[int, str] = {}
    for row, text in enumerate(texts):
        share = total = None
        value: Any = () if column.is_series else None
        try:
            if is_out_of_memory(text):
                found.memory_ran_out.add(row)
            elif column.is_series:
                value = parse_series(text, column.kind)
            elif column.row_field == "trainable":
                value, share, total = _count(text)
            else:
                value = _quantity(text, column)
        except UnitError as error:
            bad[row] = str(error)
        found.values.append(value)
        found.shares.append(share)
        found.totals.append(total)
    _into_base_units(found, meaning, bad)
    found.remarks += _remarks(header, bad, sum(not is_missing(text) for text in texts))
    return found


def _quantity(text: str, column: Column) -> Quantity | None:
    """Parse one figure. Raises `UnitError`, also for a range where one value is wanted."""
    if is_missing(text):
        return None
    bare = figure_text(text)
    if column.field in {"rank", "virtual_tokens", "seed", "learning_rate"}:
        bare = re.sub(r"^[a-z]{1,6}\s*=\s*", "", bare, flags=re.IGNORECASE)
    try:
        value = parse(bare, column.kind)
    except UnitError as error:
        if bare == text.strip():
            raise
        raise UnitError(str(error).replace(repr(bare), repr(text), 1)) from None
    if value is not None and value.is_range and not column.keeps_range:
        raise UnitError(f"{text!r} is a range; write one value")
    return value


def _count(text: str) -> tuple[Quantity | None, Quantity | None, Quantity | None]:
    """Parse `739,586 (1.09%)`, `1.09% (0.7M)` or `739,586 / 67,694,596 (1.09%)`.

    Returns count, share and total. Raises `UnitError`.
    """
    wanted = " ".join(text.split())
    share = total = None
    if both := COUNT_AND_SHARE.fullmatch(wanted) or SHARE_AND_COUNT.fullmatch(wanted):
        wanted, share = both["count"], parse(both["share"], "share")
    if parts := COUNT_OF_TOTAL.fullmatch(wanted):
        wanted, total = parts["count"], parse(figure_text(parts["total"]), "count")
    wanted = re.sub(r"\s*(?:params?|parameters)\.?$", "", wanted, flags=re.IGNORECASE)
    if is_missing(wanted):
        return None, share, total
    return parse(figure_text(wanted), "count"), share, total


def _into_base_units(found: Figures, meaning: Meaning, bad: dict[int, str]) -> None:
    """Scale the values by the header's unit; of a time or a size without any, drop them.

    Shares above 1 are percent. In a column of single values one of them makes the whole column
    percent; in a column of series it does so for its row only.
    """
    column, factor = meaning.column, meaning.factor
    cells: list[list[Quantity]] = [
        list(value) if column.is_series else [value] * (value is not None) for value in found.values
    ]
    bare = [[one for one in cell if not one.unit] for cell in cells]
    if factor is None and column.kind in {"seconds", "bytes", "joules"} and any(bare):
        of_bytes = column.kind == "bytes" and all(
            one.value >= BYTES_FROM for c in bare for one in c
        )
        if not meaning.is_bare and not of_bytes:
            found.lacks_unit = not any(one.unit for cell in cells for one in cell)
            bad |= {row: f"{cell[0].text!r} has no unit" for row, cell in enumerate(bare) if cell}
    is_share = column.kind in {"share", "score"}
    percent = [is_share and any(1 < abs(one.value) <= 100 for one in cell) for cell in bare]
    if not column.is_series:
        percent = [any(percent)] * len(cells)
    _name_doubtful(column, factor, bare, percent, bad)
    for row, cell in enumerate(cells):
        by = factor or (0.01 if percent[row] else 1.0)
        scaled = [one if one.unit else _scaled(one, by, column) for one in cell]
        if is_share and (above := [one for one in scaled if one.value > 1]):
            bad[row] = f"{above[0].text!r} is more than 100 %; write shares (0.93) or percent (93)"
        if row in bad:
            scaled = []
        found.values[row] = tuple(scaled) if column.is_series else scaled[0] if scaled else None


def _scaled(one: Quantity, factor: float, column: Column) -> Quantity:
    """Scale a figure by its header's unit. 355 below `Params (M)` is rounded, 355 alone is not."""
    if column.kind != "count" or factor == 1:
        return one.scaled(factor)
    if one.low == one.high:
        one = replace(one, low=max(0.0, one.low - 0.5), high=one.high + 1)
    return replace(one.scaled(factor), text=f"{one.text}{COUNTED.get(factor, '')}")


def _name_doubtful(
    column: Column,
    factor: float | None,
    bare: list[list[Quantity]],
    percent: list[bool],
    bad: dict[int, str],
) -> None:
    """Name the cells that may be shares or percent.

    Between percentages it is a 0.93. Where the header says %, it is a column of accuracies that are
    all below 1. Shares of trained parameters are below 1 % so often that without any unit they are
    percent only beside one above 1.
    """
    if column.kind not in {"share", "score"}:
        return
    known = [abs(one.value) for cell in bare for one in cell if one.value]
    trained = column.field == "trainable_share"
    for row, cell in enumerate(bare):
        doubtful = [one for one in cell if 0 < abs(one.value) <= 1]
        if not doubtful:
            continue
        text = doubtful[0].text
        if trained and factor is None and not percent[row]:
            bad[row] = f"{text!r} may be a share or percent; write % behind it or in the header"
        elif not trained and factor is None and percent[row]:
            bad[row] = f"{text!r} stands among percentages; write shares (0.93) or percent (93)"
        elif not trained and factor == 0.01 and max(known) <= 1:
            bad[row] = f"{text!r} may be a share, but the header says %; write 93 or drop the %"


def _remarks(header: str, bad: dict[int, str], written: int) -> list[str]:
    """Name each bad cell, or the column once where most of its cells are bad."""
    if not bad:
        return []
    first, why = min(bad.items())
    if len(bad) > MOST_NAMED:
        return [
            f"column {header!r}: {len(bad)} of {written} cells could not be read and are missing, "
            f"the first in row {first + 1}: {why}"
        ]
    return [
        f"column {header!r}, row {row + 1}: {why}; the cell is missing" for row, why in bad.items()
    ]
