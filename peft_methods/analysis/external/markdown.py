"""Tables with pipes in Markdown, each with its nearest heading; fenced code is skipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from peft_methods.analysis.external.cell_text import without_markup
from peft_methods.analysis.external.header_rows import (
    table_of_header_rows,
    with_more_headers,
)
from peft_methods.analysis.external.html_tables import from_html
from peft_methods.analysis.external.raw import RawTable

RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
FENCE = re.compile(r"\s*(```+|~~~+)")


def from_markdown(path: Path, text: str) -> tuple[RawTable, ...]:
    """Return the tables of a Markdown file, those written in HTML last."""
    lines, title, tables, place = _without_code(text.splitlines()), path.name, [], 0
    while place < len(lines):
        line = lines[place]
        if heading := re.match(r"\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$", line):
            title = without_markup(heading[1])
        if "|" in line and place + 1 < len(lines) and _is_rule(lines[place + 1], line):
            end = place + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            body = [_cells(one) for one in lines[place + 2 : end] if not RULE.fullmatch(one)]
            tables.append(table_of_header_rows(title, *with_more_headers(_cells(line), body)))
            place = end
        else:
            place += 1
    return (*tables, *from_html(path, "\n".join(lines)))


def _is_rule(line: str, header: str) -> bool:
    return (
        "|" in line
        and RULE.fullmatch(line) is not None
        and len(_split(line)) == len(_split(header))
    )


def _without_code(lines: Sequence[str]) -> list[str]:
    """Replace fenced code by empty lines. A fence ends with one at least as long."""
    found, fence = [], ""
    for line in lines:
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
            found.append("")
        else:
            fence = mark[1] if mark else ""
            found.append("" if mark else line)
    return found


def _split(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = re.sub(r"(?<!\\)\|$", "", inner)
    return re.split(r"(?<!\\)\|", inner)


def _cells(line: str) -> list[str]:
    return [without_markup(cell.replace("\\|", "|")) for cell in _split(line)]
