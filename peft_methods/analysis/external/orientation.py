"""Tables whose rows are metrics and whose columns are methods are turned."""

from __future__ import annotations

from peft_methods.analysis.external.headers import meanings_of
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.raw import RawTable, raw_table

# Headers above names of figures, by which one known name below is enough
FIGURES = frozenset(["metric", "metrics", "figure", "measure", "指标", "指標", "項目", "항목"])


def upright(raw: RawTable) -> RawTable:
    """Return the table with one row for each method.

    It is turned where headers name methods, the first column names known columns, and the headers
    themselves do not.
    """
    # A line without cells is a heading within the table.
    lines = [row for row in raw.rows if any(row[1:])]
    names, first = raw.headers[1:], [row[0] for row in lines]
    if not names or not first:
        return raw
    methods = sum(method_of(name) is not None for name in names)
    known = sum(bool(meanings_of(name)) for name in first)
    fields = sum(bool(meanings_of(name)) for name in names)
    least = 1 if raw.headers[0].casefold() in FIGURES else len(first) / 2
    if methods * 2 < len(names) or known < least or fields >= methods:
        return raw
    if any(method_of(name) is not None and not meanings_of(name) for name in first):
        return raw
    turned = raw_table(
        raw.title,
        ["method", *first],
        [[name, *(row[place] for row in lines)] for place, name in enumerate(names, 1)],
    )
    return RawTable(turned.title, turned.headers, turned.rows, (*raw.remarks, *turned.remarks))
