"""From a file or a folder to its raw tables, by the file's name and by its first characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peft_methods.analysis.external.delimited import from_delimited
from peft_methods.analysis.external.encoding import text_of
from peft_methods.analysis.external.html_tables import from_html
from peft_methods.analysis.external.json_tables import from_json, from_log
from peft_methods.analysis.external.latex import TABULAR, from_latex
from peft_methods.analysis.external.markdown import from_markdown
from peft_methods.analysis.external.raw import RawTable, TableError
from peft_methods.analysis.external.run_folders import from_folder

Reader = Callable[[Path, str], tuple[RawTable, ...]]
READERS: dict[str, Reader] = {
    ".json": from_json,
    ".jsonl": from_log,
    ".log": from_log,
    ".md": from_markdown,
    ".markdown": from_markdown,
    ".html": from_html,
    ".htm": from_html,
    ".tex": from_latex,
    ".csv": from_delimited,
    ".tsv": from_delimited,
}
OTHERS = {
    ".xlsx": "a spreadsheet", ".xls": "a spreadsheet", ".ods": "a spreadsheet",
    ".pdf": "a PDF", ".png": "a picture", ".jpg": "a picture", ".jpeg": "a picture",
    ".parquet": "a Parquet file", ".pkl": "a pickle", ".docx": "a text document",
    ".pt": "a file of weights", ".safetensors": "a file of weights",
}  # fmt: skip


def raw_tables(path: Path) -> tuple[RawTable, ...]:
    """Return the tables of a file, or of a folder of runs. Raises `TableError`."""
    if path.is_dir():
        tables = from_folder(path)
        if not tables:
            raise TableError(
                f"{path} holds no records and no results that are known. Give a folder of results "
                "(.peft/results), of runs with JSON files, or a table."
            )
        return tables
    text, guessed = _text_of(path)
    if not text.strip():
        raise TableError(
            f"{path} is empty. Give a CSV file with a header line and one row per method, or a "
            "JSON list with one object per method."
        )
    reader = READERS.get(path.suffix.lower()) or _reader_for(text)
    tables = reader(path, text)
    if not tables:
        raise TableError(
            f"{path} holds no table. Give one as CSV, Markdown, HTML, LaTeX (tabular) or JSON."
        )
    if not any(table.rows for table in tables):
        remark = next((remark for table in tables for remark in table.remarks), "")
        raise TableError(
            f"{path}: {remark}."
            if remark
            else f"{path} has a header but no rows. Give one row per method."
        )
    if guessed:
        return (replace(tables[0], remarks=(guessed, *tables[0].remarks)), *tables[1:])
    return tables


def _text_of(path: Path) -> tuple[str, str]:
    try:
        return text_of(path)
    except UnicodeError:
        kind = OTHERS.get(path.suffix.lower())
        what = f"is {kind}" if kind else "is no text in UTF-8, UTF-16 or Windows-1252"
        advice = "Save the table as CSV or JSON" + ("" if kind else ", in UTF-8")
        raise TableError(f"{path} {what}. {advice}.") from None
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}.") from None


def _reader_for(text: str) -> Reader:
    if text.lstrip()[0] in "[{" and text.lstrip()[:2] != "{'":
        return from_json
    if TABULAR.search(text):
        return from_latex
    if re.search(r"^\s*\|?\s*:?-{2,}:?\s*\|", text, re.MULTILINE):
        return from_markdown
    if "<table" in text.casefold():
        return from_html
    return from_log if re.search(r"^.*\{'(?:\w+)': ", text, re.MULTILINE) else from_delimited
