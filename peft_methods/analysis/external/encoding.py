"""The text of a file, by its byte order mark, as UTF-8, as UTF-16, or as Windows-1252."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16, so it comes before it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE = 4096  # bytes
MOSTLY_ZERO = 0.4  # of every second byte: so much of a table in UTF-16 is ASCII
CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# Letters of Western languages stand alone or in pairs; other encodings fill whole words with them.
OTHER_SCRIPT = re.compile(rb"[\x80-\xff]{4}")


def text_of(path: Path) -> tuple[str, str]:
    """Return a file's text, and a remark where its encoding had to be guessed.

    Raises `UnicodeError` for what is no text, or none whose encoding is known, and `OSError`.
    """
    data = path.read_bytes()
    for mark, name in MARKS:
        if data.startswith(mark):
            text = data.decode(name).removeprefix("\ufeff")
            return _one_kind_of_line_end(text), ""
    if name := _utf_16_without_mark(data[:SAMPLE]):
        return _one_kind_of_line_end(data.decode(name)), ""
    try:
        return _one_kind_of_line_end(data.decode("utf-8")), ""
    except UnicodeDecodeError:
        if CONTROLS.search(data) or OTHER_SCRIPT.search(data):
            raise
    text = data.decode("cp1252")
    return _one_kind_of_line_end(
        text
    ), "the file is not UTF-8 and was read as Windows-1252 (Latin-1)"


def _utf_16_without_mark(sample: bytes) -> str:
    """Return the name of the encoding whose ASCII characters have a zero at every second byte."""
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = sample[first::2], sample[1 - first :: 2]
        many = zeros.count(0) > MOSTLY_ZERO * len(zeros)
        if len(sample) >= 4 and many and 0 not in others:
            return name
    return ""


def _one_kind_of_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
