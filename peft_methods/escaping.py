"""Foreign texts made safe to show and to keep: nothing moves the cursor, hides, runs as a formula, or tells what is private."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

LONGEST = 4000  # characters of a message; a cell of a table may hold a book
REMOVED = "[redacted]"
MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|#~&"})
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
NUMBER = re.compile(r"[-+]?(\d[\d,.]*|\.\d+)(e[-+]?\d+)?%?", re.IGNORECASE | re.ASCII)
TOKEN = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA|pypi-)[A-Za-z0-9_\-]{12,}"  # as their makers mark them
    r"|(?<=://)[^\s/@]+(?=@)"  # user and password within an address
    r"|(?i:(?<=bearer )|(?<=token=)|(?<=password=)|(?<=api_key=)|(?<=signature=))[^\s&'\"]+"
)
SIGNS = (  # one of these, in lower case, is in whatever TOKEN finds
    *(
        "hf_",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "sk-",
        "xox",
        "akia",
        "pypi-",
        "://",
    ),
    *("bearer ", "token=", "password=", "api_key=", "signature="),
)
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE
)
NO_WORD = re.compile(
    r"(?=.*\d).{8,}|.{16,}", re.DOTALL
)  # a secret that is a plain word would take names away


def visible(text: str) -> str:
    """The text in one line, each character that would not be seen as `\\x1b` or `\\u202e`: controls, line breaks, invisible and
    direction-changing ones, halves of surrogate pairs. Again applied it changes nothing.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    unseen = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return character.encode("unicode_escape").decode("ascii") if unseen else character


def markdown(text: str) -> str:
    """The text in one line of Markdown, as itself: no markup, no HTML, no new column of a table."""
    return visible(text).translate(MARKDOWN)


def csv_cell(text: str) -> str:
    """The text in a cell that no spreadsheet takes for a formula: one that could be is led by an apostrophe; numbers stay."""
    return (
        f"'{visible(text)}"
        if text.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(text)
        else visible(text)
    )


def message(text: str) -> str:
    """A message to the user: one line, without secrets, of bearable length (the middle goes; the end says what to do)."""
    shown = visible(without_secrets(text))
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST * 2 // 3]} … ({len(shown) - LONGEST} more characters) … {shown[-LONGEST // 3 :]}"


def without_secrets(text: str) -> str:
    """The text less tokens, passwords in addresses, and the values of environment variables that are named as secrets."""
    return _redacted(text, _secrets())


def _redacted(text: str, secrets: tuple[str, ...]) -> str:
    for value in secrets:
        text = text.replace(value, REMOVED)
    return TOKEN.sub(REMOVED, text)


@contextmanager
def secrets_known() -> Iterator[None]:
    """Within it the environment is taken to stay as it is: for thousands of records it would be looked through again and again."""
    global _known  # noqa: PLW0603
    before, _known = _known, _secrets()
    try:
        yield
    finally:
        _known = before


_known: tuple[str, ...] | None = None


def _secrets() -> tuple[str, ...]:
    """The longest first: one may be part of another."""
    return _secrets_in(tuple(os.environ.items())) if _known is None else _known


@lru_cache(maxsize=4)
def _secrets_in(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    values = {
        value
        for name, value in environment
        if SECRET_NAME.search(name) and NO_WORD.fullmatch(value)
    }
    return tuple(sorted(values, key=len, reverse=True))


def may_tell(value: Any) -> bool:
    """Whether `private` might change the value: far quicker, for thousands of records that have nothing to hide."""
    text = repr(value)
    lower, home = text.lower(), _home_folder()
    return (
        (home != "/" and home in text)
        or any(sign in lower for sign in SIGNS)
        or any(secret in text for secret in _secrets())
    )


def private(value: Any) -> Any:
    """A JSON value as it may be kept and given away: without secrets, and paths below the user's home as `~/…`."""
    secrets, home = _secrets(), _home()

    def kept(value: Any) -> Any:
        if isinstance(value, str):
            return home.sub("~", _redacted(value, secrets))
        if isinstance(value, dict):
            return {kept(name): kept(one) for name, one in value.items()}
        return type(value)(map(kept, value)) if isinstance(value, (list, tuple)) else value

    return kept(value)


def _home() -> re.Pattern[str]:
    """The home folder where it begins a path: `/mnt/root` is not within `/root`. Who has none has nothing to hide."""
    home = _home_folder()
    return re.compile(rf"(?<!\w){re.escape(home)}(?![\w-])" if home != "/" else r"(?!)")


def _home_folder() -> str:
    try:
        return str(Path.home())
    except RuntimeError:
        return "/"
