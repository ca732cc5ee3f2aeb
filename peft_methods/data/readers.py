"""One file to a table: CSV, TSV, JSON, JSON lines and CoNLL (also gzipped), and Parquet.

What programs write besides plain UTF-8 CSV is read as meant: byte order marks, UTF-16, arrays in
JSON, class names in Parquet, and what `separated` knows of CSV.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.data.conll import parse_conll
from peft_methods.data.raw import ClassNames
from peft_methods.data.separated import read_separated
from peft_methods.utils.errors import DataError, first_line

if TYPE_CHECKING:
    from pandas import DataFrame

GZIP = ".gz"
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "conll", "txt")
CONLL = ("conll", "txt")  # formats of one word a line
MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_ROWS = (
    "each line should be a JSON object with the columns as keys, or the whole file an array of "
    "such objects"
)


@dataclass(frozen=True)
class ReadTable:
    """The rows of a file, and the class names that it declares."""

    frame: DataFrame
    class_names: ClassNames = field(default_factory=dict)


def name_and_format(file: Path) -> tuple[str, str]:
    """Split a file's name: 'Train.CSV.gz' -> ('train', 'csv'). Other files have the format ''."""
    name = file.name.lower()
    compressed = name.endswith(GZIP)
    stem, _, format = name.removesuffix(GZIP).rpartition(".")
    known = format in FORMATS and not (compressed and format == "parquet")
    return (stem, format) if known else (name, "")


def read_table(file: Path) -> ReadTable:
    """Read a file of a known format. Raises `DataError`."""
    _, format = name_and_format(file)
    try:
        table = _read_parquet(file) if format == "parquet" else _read_text(file, format)
        table.frame.columns = table.frame.columns.map(str)
        if not table.frame.columns.is_unique:
            raise ValueError("two columns have the same name")
        return table
    except Exception as error:  # each format has its own errors; all mean a file of another format
        cause = str(error) if type(error) is ValueError else first_line(error)
        raise DataError(f"{file} cannot be read as {format}: {cause}") from None


def _read_text(file: Path, format: str) -> ReadTable:
    content = file.read_bytes()
    text = decode(gzip.decompress(content) if file.name.lower().endswith(GZIP) else content)
    if not text.strip():
        raise ValueError("it is empty")
    parse: Callable[[str], DataFrame] = (
        _json_rows
        if format.startswith("json")
        else _conll_rows
        if format in CONLL
        else lambda text: read_separated(text, format)
    )
    return ReadTable(parse(text))


def _conll_rows(text: str) -> DataFrame:
    import pandas as pd

    return pd.DataFrame(parse_conll(text))


def decode(content: bytes) -> str:
    """Decode text by its byte order mark, as UTF-8, or as UTF-16 without a mark."""
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:2]:  # half of an ASCII character in UTF-16
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"it is not valid {(encoding or 'utf-8').upper()}; save the file as UTF-8"
        ) from None


def _json_rows(text: str) -> DataFrame:
    import pandas as pd

    rows = _parsed(text)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(NOT_ROWS)
    return pd.DataFrame(rows)  # keeps values as written; pandas' own reader guesses types


def _parsed(text: str) -> list[Any]:
    """Return the rows of a file that is one array, or of JSON lines. Raises `ValueError`."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise  # the first value is damaged: its place in the file is known
    else:
        return whole if isinstance(whole, list) else [whole]
    # splitlines() would also split at U+2028 within a text
    lines = enumerate(io.StringIO(text, newline=""), 1)
    return [_parsed_line(line, number) for number, line in lines if line.strip()]


def _parsed_line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        where = f"line {number}, column {error.colno}"
        raise ValueError(f"{error.msg} in {where}; {NOT_ROWS}") from None


def _read_parquet(file: Path) -> ReadTable:
    import pandas as pd
    from pyarrow import parquet

    # invalid texts raise during the conversion, so that the error names the file
    frame = pd.read_parquet(file).astype(object)
    return ReadTable(frame, _declared_names(parquet.read_schema(file).metadata or {}))


def _declared_names(metadata: dict[bytes, bytes]) -> ClassNames:
    """Return the names of the ClassLabel columns that `datasets` stores with a Parquet file.

    A column of lists has them in the feature of its entries.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        innermost = {column: _entries(feature) for column, feature in features.items()}
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in innermost.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # not written by `datasets`


def _entries(feature: Any) -> Any:
    """Return the feature of a list's entries; old versions write a list that holds it alone."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature", feature) if isinstance(feature, dict) else feature
