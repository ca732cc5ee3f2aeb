r"""Tabulars of LaTeX: rules, `\multicolumn` and `\multirow`, comments, captions."""

from __future__ import annotations

import re
from pathlib import Path

from peft_methods.analysis.external.cell_text import without_latex, without_markup
from peft_methods.analysis.external.grid import Cell, table_of_grid
from peft_methods.analysis.external.raw import RawTable

TABULAR = re.compile(
    r"\\begin\{(?P<name>tabular[xy*]?|tabulary|longtable|xltabular|(?:long|tall)?tblr|"
    r"NiceTabular[X*]?)\}(?P<body>.*?)\\end\{(?P=name)\}",
    re.DOTALL,
)
WITH_WIDTH = {"tabular*", "tabularx", "tabulary", "xltabular", "NiceTabular*", "NiceTabularX"}
RULES = re.compile(
    r"\\(?:hline|toprule|bottomrule|midrule|addlinespace|endhead|endfirsthead|endfoot|endlastfoot)"
    r"(?:\[[^\]]*\])?|\\(?:cmidrule|cline|specialrule)(?:\([^)]*\))?(?:\{[^{}]*\})+"
)
HEADER_END = re.compile(r"\\(?:midrule|hline|endhead)")


def from_latex(path: Path, text: str) -> tuple[RawTable, ...]:
    """Return the tabulars of a LaTeX file, each with the nearest caption."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    return tuple(
        _table(_title(text, found) or path.name, _without_columns(found["name"], found["body"]))
        for found in TABULAR.finditer(text)
    )


def _title(text: str, found: re.Match[str]) -> str:
    start, end = (
        text.rfind("\\begin{table", 0, found.start()),
        text.find("\\end{table", found.end()),
    )
    around = text[max(start, 0) : end if end >= 0 else len(text)]
    place = around.find("\\caption{")
    if start < 0 or place < 0:
        return ""
    return without_markup(without_latex(_group(around, place + len("\\caption"))[0]))


def _group(text: str, start: int) -> tuple[str, int]:
    """Return what the braces hold that open at `start` or after it, and where they end."""
    start, depth = text.find("{", start), 0
    if start < 0:
        return "", len(text)
    for place in range(start, len(text)):
        escaped = place > 0 and text[place - 1] == "\\"
        depth += {"{": 1, "}": -1}.get(text[place], 0) if not escaped else 0
        if depth == 0:
            return text[start + 1 : place], place + 1
    return text[start + 1 :], len(text)


def _without_columns(name: str, body: str) -> str:
    """Drop the arguments that give the width and the columns."""
    body = re.sub(r"^\s*\[[^\]]*\]", "", body)
    for _ in range(2 if name in WITH_WIDTH else 1):
        if body.lstrip().startswith("{"):
            body = body[_group(body, 0)[1] :]
    return body


def _table(title: str, body: str) -> RawTable:
    lines, headers = _split(body, "\\\\"), 0
    rows: list[list[Cell]] = []
    for number, line in enumerate(lines):
        if number and not headers and HEADER_END.search(line):
            headers = len(rows)
        text = RULES.sub("", re.sub(r"^\s*\[[^\]]*\]", "", line) if number else line)
        if text.strip():
            rows.append(_with_empty_below([_cell(one) for one in _split(text, "&")], rows))
    return table_of_grid(title, rows, headers)


def _with_empty_below(cells: list[Cell], above: list[list[Cell]]) -> list[Cell]:
    r"""Drop the empty cells below a `\multirow`, which LaTeX wants and a grid does not."""
    covered, place, kept = _covered(above), 0, []
    for cell in cells:
        if not (place in covered and not cell.text):
            kept.append(cell)
        place += cell.columns
    return kept


def _covered(above: list[list[Cell]]) -> set[int]:
    """Return the places of the next row that cells above it reach into."""
    reach: dict[int, int] = {}
    for row in above:
        reach = {place: rows - 1 for place, rows in reach.items() if rows > 1}
        place = 0
        for cell in row:
            while place in reach:
                place += 1
            reach |= {place + offset: cell.rows for offset in range(cell.columns)}
            place += cell.columns
    return {place for place, rows in reach.items() if rows > 1}


def _split(text: str, mark: str) -> list[str]:
    r"""Split at `&` or `\\` outside braces."""
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if depth == 0 and text.startswith(mark, place):
            parts.append(text[start:place])
            place += len(mark)
            start = place
            continue
        if text[place] == "\\":
            place += 2
            continue
        depth = max(0, depth + {"{": 1, "}": -1}.get(text[place], 0))
        place += 1
    return [*parts, text[start:]]


def _cell(text: str) -> Cell:
    columns = rows = 1
    while found := re.match(r"\s*\\multi(column|row)\b(?:\[[^\]]*\])?\s*", text):
        number, end = _group(text, found.end())
        end = _group(text, end)[1]
        text = _group(text, end)[0]
        count = int(number) if re.fullmatch(r"\d{1,2}", number.strip()) else 1
        columns, rows = (max(count, 1), rows) if found[1] == "column" else (columns, max(count, 1))
    return Cell(without_markup(without_latex(text)), columns, rows)
