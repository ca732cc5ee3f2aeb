"""Tables whose methods are named by a header: `LoRA rank`, or `LoRA` above yes and no."""

from __future__ import annotations

import re
from dataclasses import replace

from peft_methods.analysis.external.headers import meanings_of
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.raw import RawTable

SETTINGS = frozenset(["rank", "virtual_tokens"])  # fields that one method's rows may differ in
BASELINE = "baseline"
YES = re.compile(r"(?:yes|true|with|on|1)(?![\w.])\W*(.*)", re.IGNORECASE)
NO = re.compile(r"(?:no|false|without|none|off|✗|✘|0)(?![\w.]).*", re.IGNORECASE)


def with_implied_methods(raw: RawTable) -> RawTable:
    """Return the table with a column `method`, where exactly one header implies it.

    - A header that names a method and its rank or number of tokens: `8` below `LoRA rank` is
      "LoRA rank 8".
    - A header that is a method above cells that all say yes or no: `Yes (Q, V)` below `LoRA` is
      "LoRA (Q, V)"; `No` and an empty cell are "baseline".

    Returns the table itself where no header does, or several do.
    """
    implied = {
        place: names
        for place, header in enumerate(raw.headers)
        if method_of(header) is not None
        and (names := _names(header, [row[place] for row in raw.rows]))
    }
    if len(implied) != 1:
        return raw
    (place, names), *_ = implied.items()
    header = raw.headers[place]
    # The ranks stay a column; answers are in the names.
    kept = [one for one, _ in enumerate(raw.headers) if one != place or meanings_of(header)]
    return replace(
        raw,
        headers=("method", *(raw.headers[one] for one in kept)),
        rows=tuple(
            (name, *(row[one] for one in kept)) for name, row in zip(names, raw.rows, strict=True)
        ),
        remarks=(*raw.remarks, f"no column names the methods: rows are named by {header!r}"),
    )


def _names(header: str, texts: list[str]) -> list[str]:
    """Return a name for each cell below a header that names a method; empty if it implies none."""
    meanings = meanings_of(header)
    if meanings and meanings[0].column.field in SETTINGS:
        return [f"{header} {text}" if text else "" for text in texts]
    answers = [_answered(header, text) for text in texts]
    known = [answer for answer in answers if answer]
    if meanings or len(known) < len(texts) or set(known) == {BASELINE}:
        return []
    return known


def _answered(header: str, text: str) -> str | None:
    """Return a row's name by the answer in its cell, where an empty one is no; None without one."""
    if not text or NO.fullmatch(text):
        return BASELINE
    yes = YES.fullmatch(text)
    if yes is None:
        return None
    return f"{header} ({yes[1].strip('() ')})" if yes[1] else header
