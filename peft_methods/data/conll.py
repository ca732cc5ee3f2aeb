"""CoNLL files: one word a line with its tag, sentences separated by blank lines.

Columns are separated by tabs, or by blanks in files without tabs; the word is the first and the tag
the last (Tjong Kim Sang & De Meulder 2003). Lines of the form `-DOCSTART-` and comments such as
`# id = 3` at the beginning of a sentence are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WORDS, TAGS = "tokens", "tags"  # the columns of the table that a file becomes
NEW_DOCUMENT = "-DOCSTART-"
COMMENT = re.compile(r"#\s*\S.*=")
LONGEST_ONLY = 100  # words of the only sentence of a file; with more, blank lines are missing
CONLL_U = 10  # columns of a CoNLL-U file, the first of them the word's number
NUMBERED = re.compile(r"\d+([-.]\d+)?")
FORM = "each line should hold a word and its tag, separated by a tab or blanks"


def parse_conll(text: str) -> dict[str, list[list[str]]]:
    """Return the words and the tags of each sentence, as two columns of lists.

    Raises `ValueError` that names the line, for lines of unlike numbers of columns, and for files
    in CoNLL-U, whose last column is no tag.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    width = 0
    is_new = True
    for number, columns in _lines(text):
        if not columns:
            is_new = True
            continue
        if is_new and COMMENT.match(" ".join(columns)) and columns[0].startswith("#"):
            continue
        if columns[0] == NEW_DOCUMENT:
            is_new = True
            continue
        width = width or len(columns)
        _check(columns, number, width)
        if is_new:
            words.append([])
            tags.append([])
            is_new = False
        words[-1].append(columns[0])
        tags[-1].append(columns[-1])
    if not words:
        raise ValueError(f"it holds no sentence; {FORM}")
    if len(words) == 1 and len(words[0]) > LONGEST_ONLY:
        raise ValueError(
            f"it holds one sentence of {len(words[0]):,} words; separate sentences by blank lines"
        )
    return {WORDS: words, TAGS: tags}


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's number and columns; none for a blank line."""
    # splitlines() would also split at U+0085 and U+2028, which occur within words
    end = "\n" if "\n" in text else "\r"
    lines = text.replace("\r\n", "\n").split(end)
    separator = "\t" if any("\t" in line.strip() for line in lines) else None
    for number, line in enumerate(lines, 1):
        stripped = line.strip(" \t\r")
        if not stripped:
            yield number, []
        elif separator and separator in stripped:
            yield number, [part.strip(" ") for part in stripped.split(separator)]
        else:
            yield number, re.split(r"[ \t]+", stripped)


def _check(columns: list[str], number: int, width: int) -> None:
    if len(columns) < 2:
        raise ValueError(f"line {number} has one column ({columns[0][:30]!r}); {FORM}")
    if width == CONLL_U and NUMBERED.fullmatch(columns[0]):
        raise ValueError(
            f"line {number} is in CoNLL-U, whose last column is no tag; write the word and its tag "
            f"alone, separated by a tab"
        )
    if len(columns) != width:
        raise ValueError(
            f"line {number} has {len(columns)} columns, but those before have {width}; {FORM}"
        )
