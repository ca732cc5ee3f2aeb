"""Typst markup: escaping of foreign text, tables, figures, and the compiler."""

from __future__ import annotations

import importlib.util
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from peft_methods.utils.errors import OptionError, PeftMethodsError

TEMPLATE = Path(__file__).parent / "template.typ"
# Characters to escape. A hyphen between letters needs no escape.
MARKUP = re.compile(r"(?<![A-Za-z])-|-(?![A-Za-z])|[\\*_`#$<>@\[\]~+=/'\".{}|^&]")
FULL_WIDTH = 9  # so many columns leave width for a first column that takes the rest
SHORT = 4  # tables of up to this many rows are not broken
ROWS_OF_A_TABLE = 32  # more may not fit on a page if names need two lines
# Latin, Greek, Cyrillic and punctuation: Typst includes fonts for them.
EMBEDDED_SCRIPTS = re.compile(r"[\x00-\u052f\u1e00-\u22ff\ufffd]*")


class PaperError(PeftMethodsError):
    """A paper that cannot be typeset or written."""


def check_requirements() -> None:
    """Raise `OptionError` unless the chart library and the typesetter are installed."""
    missing = [name for name in ("typst", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(
            f"a paper needs {' and '.join(missing)}: pip install 'peft-methods[paper]'."
        )


def escaped(text: str) -> str:
    """Return markup that shows exactly this text.

    White space becomes one space; other control characters become U+FFFD.
    """
    words = re.sub(r"[^\S\u00a0]+", " ", text).strip(" ")
    return MARKUP.sub(r"\\\g<0>", _printable(words))


def literal(text: str) -> str:
    """Return the text as a string in Typst code."""
    return '"{}"'.format(_printable(text).replace("\\", "\\\\").replace('"', '\\"'))


def _printable(text: str) -> str:
    return "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text)


def table(
    label: str,
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    wide: bool = False,
    columns: str = "",
    align: str = "",
) -> str:
    """Return a table with its caption; every cell is markup.

    By default, the first column takes the remaining width, of which many columns leave none: then
    all of them share the width. A narrow table breaks over columns and pages. A wide one floats and
    cannot break, so a long one is split into several tables. The first of them has the label.
    """
    first = "1fr" if len(head) <= FULL_WIDTH else "auto"
    columns = columns or f"({first}, {'auto, ' * (len(head) - 1)})"
    align = align or f"(left, {'right, ' * (len(head) - 1)})"
    size = ROWS_OF_A_TABLE if wide else len(rows) or 1
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return "\n\n".join(
        f"#tabular([{caption}{' (continued)' if index else ''}], wide: {str(wide).lower()}, "
        f"short: {str(len(part) <= SHORT).lower()},\n"
        f"  ruled({columns}, {align}, ({_cells(head)}),\n"
        + "\n".join(f"    {_cells(row)}" for row in part)
        + "\n  ),\n)"
        + ("" if index else f" <{label}>")
        for index, part in enumerate(parts)
    )


def _cells(row: Sequence[str]) -> str:
    return " ".join(f"[{cell}]," for cell in row)


def figure(label: str, caption: str, drawings: Mapping[str, str]) -> str:
    """Return drawings (SVG) side by side over both columns.

    `drawings` maps each path to its description in plain text.
    """
    shown = "".join(f"({literal(path)}, {literal(alt)}), " for path, alt in drawings.items())
    return f"#charts([{caption}], {shown}) <{label}>"


def compiled(source: str, files: Mapping[str, bytes], timestamp: int) -> bytes:
    """Compile a document, with the files that it names, to PDF. Raises `PaperError`.

    The same input gives the same bytes.
    """
    import typst

    with tempfile.TemporaryDirectory(prefix="peft-paper-") as name:
        folder = Path(name)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        (folder / "paper.typ").write_text(source, encoding="utf-8")
        own_fonts = EMBEDDED_SCRIPTS.fullmatch(source) is not None
        try:
            made = typst.compile(
                folder / "paper.typ",
                root=folder,
                timestamp=timestamp,
                ignore_system_fonts=own_fonts,
            )
        except typst.TypstError as error:
            raise PaperError(f"the paper could not be typeset: {error.message}.") from None
    assert isinstance(made, bytes), "a PDF is one file"
    return made
