"""Which column of a raw table holds what: by its header, by hand, and by the form of its cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from peft_methods.analysis.external.columns import COLUMNS, TEXT, Column
from peft_methods.analysis.external.derived import derive
from peft_methods.analysis.external.figures import Figures, figures_of
from peft_methods.analysis.external.grid import SECTION
from peft_methods.analysis.external.headers import (
    DATA_SETS,
    Meaning,
    data_set_of,
    meanings_of,
)
from peft_methods.analysis.external.method_columns import method_column
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.raw import RawTable, TableError
from peft_methods.analysis.external.seed_columns import (
    mean_figures,
    meanings_of_seeds,
    seed_groups,
)
from peft_methods.analysis.external.unread import NEAR, of_unknown, settings_of
from peft_methods.analysis.external.vocabulary import model_in
from peft_methods.utils.errors import nearest
from peft_methods.utils.units import is_missing, unit_of

PEFT_MEMORY = "accelerator_memory_max"  # of PEFT's method comparison, which writes base units

# Headers that are a share of the count before them
SHARE_WORDS = frozenset(
    ["%", "percent", "percentage", "pct", "share", "ratio", "fraction", "proportion", "anteil"]
)

Wanted = tuple[list[str], tuple[Meaning, ...]]  # the headers of a figure, and what they may mean


@dataclass
class Assigned:
    """The understood columns of a table by field, and remarks about the others.

    `unread`: what the unknown columns that are settings say, for each row by header.
    """

    by_field: dict[str, Figures] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    unread: tuple[dict[str, str], ...] = ()

    def texts(self, name: str, raw: RawTable) -> list[str]:
        """Return the texts of the column of a field; empty if there is none."""
        if name not in self.by_field:
            return []
        place = raw.headers.index(self.by_field[name].header)
        return [row[place] for row in raw.rows]


def assigned(raw: RawTable, mapping: Mapping[str, str]) -> Assigned:
    """Find out what each column holds. Of two that mean the same, the clearer one is read.

    `mapping` gives columns by hand: header -> field.
    """
    cells = {header: [row[at] for row in raw.rows] for at, header in enumerate(raw.headers)}
    method = method_column(raw, mapping)
    found, unknown, wanted = Assigned(), list[str](), list[Wanted]()
    seeds = seed_groups([one for one in raw.headers if one != method])
    for rest, headers in seeds.items():
        by_hand = [_by_hand(one, mapping[one]) for one in headers if one in mapping]
        if meanings := tuple(by_hand[:1]) or meanings_of_seeds(rest, raw.title):
            wanted.append((headers, meanings))
        else:
            names = ", ".join(map(repr, headers))
            found.remarks.append(
                f"columns {names} are seeds, but do not say which figure they hold: not read. Say "
                f'it by --map "{headers[0]}=FIELD"'
            )
    taken = {header for headers in seeds.values() for header in headers}
    before: tuple[Meaning, ...] = ()
    for header, texts in cells.items():
        if header in taken:
            continue
        meanings = _meanings(header, texts, method, mapping, PEFT_MEMORY in cells)
        meanings = meanings or _of_share(header, before)
        if meanings:
            wanted.append(([header], meanings))
        elif not meanings_of(header):
            unknown.append(header)
        before = meanings
    if models := _of_models(unknown, cells, wanted):
        wanted.append(([models], (Meaning(_column_of_field("model"), None, 95),)))
        unknown.remove(models)
        found.remarks.append(f"column {models!r} holds models by its cells, and was read as such")
    # The clearest header of each column comes first.
    for headers, meanings in sorted(wanted, key=lambda one: one[1][0].clarity):
        _assign(found, headers, meanings, [cells[header] for header in headers])
    found.remarks += derive(found.by_field)
    found.remarks += _without_metric(found)
    order = {header: place for place, header in enumerate(raw.headers)}
    found.remarks.sort(key=lambda remark: _place(remark, order))
    found.unread = settings_of({header: cells[header] for header in unknown}, len(raw.rows))
    if unknown:
        found.remarks.append(of_unknown(unknown))
    return found


def _meanings(
    header: str, texts: Sequence[str], method: str | None, mapping: Mapping[str, str], of_peft: bool
) -> tuple[Meaning, ...]:
    """Return what a column may hold; empty for an unknown one."""
    if header == method:
        return (Meaning(_column_of_field("method"), None, -1),)
    if header in mapping:
        return (_by_hand(header, mapping[header]),)
    if header == SECTION:
        return (Meaning(_column_of_section(texts), None, 90),)
    meanings = tuple(one for one in meanings_of(header) if one.column.field != "method")
    return tuple(replace(one, is_bare=True) for one in meanings) if of_peft else meanings


def _of_share(header: str, before: Sequence[Meaning]) -> tuple[Meaning, ...]:
    """Return the meaning of a header `%` behind the trained parameters or the total: the share."""
    words = re.findall(r"[^\W_]+|%", header.casefold())
    is_behind = before and before[0].column.field in {"trainable_parameters", "total_parameters"}
    if not words or not is_behind or not set(words) <= SHARE_WORDS:
        return ()
    factor = 0.01 if {"%", "percent", "percentage", "pct"} & set(words) else None
    return (Meaning(_column_of_field("trainable_share"), factor, 60),)


def _of_models(
    unknown: Sequence[str], cells: Mapping[str, Sequence[str]], wanted: Sequence[Wanted]
) -> str | None:
    """Return the only unknown header whose cells all name models; None beside a model column."""
    if any(one.column.field == "model" for _, meanings in wanted for one in meanings[:1]):
        return None
    known = {header: [t for t in cells[header] if not is_missing(t)] for header in unknown}
    found = [
        header
        for header, texts in known.items()
        if texts and all(model_in(text) and method_of(text) is None for text in texts)
    ]
    return found[0] if len(found) == 1 else None


def _without_metric(found: Assigned) -> list[str]:
    """Name the columns of data sets with more than one usual metric where none is named."""
    names = [
        repr(figures.header)
        for field, figures in found.by_field.items()
        if figures.column.is_score and field in DATA_SETS
    ]
    if not names:
        return []
    one, several = "column {} does", "columns {} do"
    first = (one if len(names) == 1 else several).format(", ".join(names))
    return [f"{first} not say which metric they hold: read as scores, not as accuracies"]


def _place(remark: str, order: Mapping[str, int]) -> int:
    return next((place for name, place in order.items() if repr(name) in remark), len(order))


def _assign(
    found: Assigned,
    headers: Sequence[str],
    meanings: Sequence[Meaning],
    columns: Sequence[Sequence[str]],
) -> None:
    """Take the first meaning that is free and that the cells fit. Several columns are seeds."""
    header = headers[0]
    free = [one for one in meanings if one.column.field not in found.by_field]
    if not free:
        other = found.by_field[meanings[0].column.field].header
        found.remarks.append(
            f"columns {other!r} and {header!r} both mean {meanings[0].column.field}; only the "
            "first of them was read"
        )
        return
    if len(headers) > 1:
        tried = [mean_figures(headers, one, columns) for one in free]
    else:
        tried = [_checked(figures_of(header, one, columns[0])) for one in free]
    best = next((one for one in tried if not one.is_empty or one.memory_ran_out), tried[0])
    if best.lacks_unit:
        found.remarks.append(
            f"column {header!r} has no unit and was ignored. Rename it to "
            f"{_with_unit(header, best.column)}, or add the unit to each value"
        )
        if not best.memory_ran_out:
            return
    else:
        found.remarks += best.remarks
    found.by_field[best.column.field] = best


def _checked(figures: Figures) -> Figures:
    """Empty a text column whose cells are numbers: `precision` of 0.93 is a quality."""
    known = [text for text in figures.values if text]
    if figures.column.field == "precision" and known:
        numbers = sum(_is_share(text) for text in known)
        if numbers == len(known):
            figures.values = [""] * len(figures.values)
    return figures


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text.rstrip("% ")) <= 100 and text not in {"4", "8", "16", "32"}
    except ValueError:
        return False


def _with_unit(header: str, column: Column) -> str:
    unit = {"seconds": "seconds", "bytes": "mb", "joules": "kwh"}[column.kind]
    return f"{header}_{unit}"


def _column_of_section(texts: Sequence[str]) -> Column:
    """Headings within a table are data sets, or else models: either way they separate rows."""
    known = [text for text in texts if text]
    is_data = all(data_set_of(text) is not None for text in known)
    return _column_of_field("data" if is_data else "model")


def _column_of_field(name: str) -> Column:
    return next(column for column in COLUMNS if column.field == name)


def _by_hand(header: str, name: str) -> Meaning:
    """Return the meaning that `--map` gives a column. Raises `TableError` for an unknown field."""
    column = next((one for one in COLUMNS if name in {one.field, one.row_field}), None)
    if column is None:
        fields = [one.field for one in COLUMNS]
        raise TableError(
            f"--map: unknown field {name!r} for column {header!r}.{nearest(name, fields, NEAR)} "
            f"Allowed: {', '.join(fields)}."
        )
    return Meaning(column, _factor(header, column), -1)


def _factor(header: str, column: Column) -> float | None:
    """Return the factor of a unit that the header names as its last word."""
    if column.kind == TEXT:
        return None
    return unit_of(["", *re.findall(r"[^\W_]+|%", header.casefold())], column.kind)[1]
