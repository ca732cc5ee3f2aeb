"""Which column of a raw table names the methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis.external.columns import TEXT
from peft_methods.analysis.external.grid import SECTION
from peft_methods.analysis.external.headers import meanings_of
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.raw import RawTable
from peft_methods.utils.units import is_missing


def method_column(raw: RawTable, mapping: Mapping[str, str]) -> str | None:
    """Return the header of the column that names the methods; None for none.

    It is the one given by hand, else the one with a header for it whose cells are methods most
    often, else an unnamed first column, else any whose cells are methods, else the one of models
    if some of its cells name methods too.
    """
    cells = {header: [row[at] for row in raw.rows] for at, header in enumerate(raw.headers)}
    for header, name in mapping.items():
        if header in cells and name in {"method", "name"}:
            return header
    shares = {header: _share_of_methods(texts) for header, texts in cells.items()}
    clarity = {
        header: meaning.clarity
        for header in cells
        for meaning in meanings_of(header)
        if meaning.column.field == "method"
    }
    named = {header: shares[header] for header in clarity if any(cells[header])}
    if named:
        best = max(named, key=lambda header: (named[header] > 0.5, -clarity[header]))
        other = max(shares, key=lambda header: shares[header])
        is_clear = named[best] > 0 or clarity[best] == 0 or shares[other] < 0.5
        return best if is_clear else other
    if clarity and not raw.headers.count(""):
        return min(clarity, key=lambda header: clarity[header])
    first = raw.headers[0] if raw.headers else ""
    if not first and any(cells.get("", ())) and not all(t.isdecimal() for t in cells[""]):
        return first
    texts = {
        header: share
        for header, share in shares.items()
        if share >= 0.5 and (header == SECTION or _kind(header) in {None, TEXT})
    }
    models = [header for header, share in shares.items() if share and _fields(header) == ["model"]]
    return max(texts, key=lambda header: texts[header], default=models[0] if models else None)


def _fields(header: str) -> list[str]:
    return [one.column.field for one in meanings_of(header)]


def _kind(header: str) -> str | None:
    found = meanings_of(header)
    return found[0].column.kind if found else None


def _share_of_methods(texts: Sequence[str]) -> float:
    known = [text for text in texts if not is_missing(text)]
    return sum(method_of(text) is not None for text in known) / len(known) if known else 0.0
