"""Text that is not ours as Typst markup; tables, figures and lists; the compiler."""

from __future__ import annotations

import importlib.util
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from peft_methods.errors import OptionError, PeftMethodsError

TEMPLATE = Path(__file__).parent / "template.typ"
MARKUP = re.compile(
    r"(?<![A-Za-z])-|-(?![A-Za-z])|[\\*_`#$<>@\[\]~+=/'\".{}|^&]"
)  # a hyphen between letters may stay
SHORT = 4  # rows of a table that is not to be broken
ROWS_OF_A_TABLE = 32  # more may not fit on a page, if names need two lines
EMBEDDED_SCRIPTS = re.compile(
    r"[\x00-\u052f\u1e00-\u22ff\ufffd]*"
)  # Latin, Greek, Cyrillic, punctuation: the engine brings fonts for them


class PaperError(PeftMethodsError):
    """A paper that cannot be made or written."""


def check_possible(where: str) -> None:
    """Raise `OptionError` unless what draws and typesets is installed."""
    missing = [name for name in ("typst", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(
            f"{where} needs {' and '.join(missing)}: pip install 'peft-methods[paper]'."
        )


def escaped(text: str) -> str:
    """Markup that shows this text and nothing else; any white space is one space, other control characters are U+FFFD."""
    words = re.sub(r"[^\S\u00a0]+", " ", text).strip(" ")
    return MARKUP.sub(r"\\\g<0>", _printable(words))


def literal(text: str) -> str:
    """The text as a string in Typst code."""
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
    """A table with its caption; every cell is markup. Unless said otherwise the first column takes what room there is.

    A narrow table breaks over columns and pages. A wide one floats, which cannot break: if long it becomes several, the first of
    which has the label.
    """
    columns = columns or f"(1fr, {'auto, ' * (len(head) - 1)})"
    align = align or f"(left, {'right, ' * (len(head) - 1)})"
    size = ROWS_OF_A_TABLE if wide else len(rows) or 1
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return "\n\n".join(
        f"#tabular([{caption}{' (continued)' if index else ''}], wide: {str(wide).lower()}, short: {str(len(part) <= SHORT).lower()},\n"
        f"  ruled({columns}, {align}, ({_cells(head)}),\n"
        + "\n".join(f"    {_cells(row)}" for row in part)
        + "\n  ),\n)"
        + ("" if index else f" <{label}>")
        for index, part in enumerate(parts)
    )


def _cells(row: Sequence[str]) -> str:
    return " ".join(f"[{cell}]," for cell in row)


def figure(label: str, caption: str, drawings: Mapping[str, str]) -> str:
    """Drawings (SVG) side by side over both columns, by their paths, each with what it shows in words (plain text)."""
    shown = "".join(f"({literal(path)}, {literal(alt)}), " for path, alt in drawings.items())
    return f"#charts([{caption}], {shown}) <{label}>"


def compiled(source: str, files: Mapping[str, bytes], timestamp: int) -> bytes:
    """The PDF of a document and the files that it names, the same bytes every time. Raises `PaperError`."""
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
