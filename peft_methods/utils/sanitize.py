"""Foreign texts made safe to display and store.

No text moves the cursor, hides characters, runs as a spreadsheet formula or reveals private data.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

MAX_LENGTH = 4000  # characters of a message; a cell of a user's table may hold any text
REMOVED = "[redacted]"
MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|#~&"})
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
NUMBER = re.compile(r"[-+]?(\d[\d,.]*|\.\d+)(e[-+]?\d+)?%?", re.IGNORECASE | re.ASCII)
TOKEN = re.compile(
    # the prefixes that the issuers give their tokens
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA|pypi-)[A-Za-z0-9_\-]{12,}"
    r"|(?<=://)[^\s/@]+(?=@)"  # user and password in a URL
    r"|(?i:(?<=bearer )|(?<=token=)|(?<=password=)|(?<=api_key=)|(?<=signature=))[^\s&'\"]+"
)
TOKEN_MARKERS = (  # every match of TOKEN, in lower case, contains one of these
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
# Shorter values and plain words are not redacted: they would also remove ordinary names.
SECRET_VALUE = re.compile(r"(?=.*\d).{8,}|.{16,}", re.DOTALL)


def visible(text: str) -> str:
    r"""Return the text as one line in which every invisible character is written as an escape.

    These are controls, line breaks, invisible and direction-changing characters and unpaired
    surrogates, written as `\x1b` or `\u202e`. Idempotent.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    invisible = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return character.encode("unicode_escape").decode("ascii") if invisible else character


def markdown(text: str) -> str:
    """Escape the text for one line of Markdown: no markup, no HTML, no additional table column."""
    return visible(text).translate(MARKDOWN)


def csv_cell(text: str) -> str:
    """Escape the text for a CSV cell, so that no spreadsheet takes it for a formula.

    Texts that could be formulas get a leading apostrophe. Numbers stay as they are.
    """
    may_be_formula = text.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(text)
    return f"'{visible(text)}" if may_be_formula else visible(text)


def message(text: str) -> str:
    """Return a user message as one line, without secrets and of limited length.

    A long text loses its middle, because the end says what to do.
    """
    shown = visible(without_secrets(text))
    if len(shown) <= MAX_LENGTH:
        return shown
    start, end = shown[: MAX_LENGTH * 2 // 3], shown[-MAX_LENGTH // 3 :]
    return f"{start} … ({len(shown) - MAX_LENGTH} more characters) … {end}"


def without_secrets(text: str) -> str:
    """Return the text without tokens, passwords in URLs and values of secret environment variables.

    An environment variable is secret if its name says so.
    """
    return _redacted(text, _secrets())


def _redacted(text: str, secrets: tuple[str, ...]) -> str:
    for value in secrets:
        text = text.replace(value, REMOVED)
    return TOKEN.sub(REMOVED, text)


@contextmanager
def secrets_known() -> Iterator[None]:
    """Read the environment's secrets once for the whole block.

    Otherwise the environment would be searched again for each of thousands of records.
    """
    global _cached_secrets  # noqa: PLW0603
    before, _cached_secrets = _cached_secrets, _secrets()
    try:
        yield
    finally:
        _cached_secrets = before


_cached_secrets: tuple[str, ...] | None = None


def _secrets() -> tuple[str, ...]:
    """Return the secrets, longest first, because one may contain another."""
    return _secrets_in(tuple(os.environ.items())) if _cached_secrets is None else _cached_secrets


@lru_cache(maxsize=4)
def _secrets_in(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    values = {
        value
        for name, value in environment
        if SECRET_NAME.search(name) and SECRET_VALUE.fullmatch(value)
    }
    return tuple(sorted(values, key=len, reverse=True))


def may_tell(value: Any) -> bool:
    """Whether `private` might change the value.

    Much faster than `private` for thousands of records that contain nothing private.
    """
    text = value if isinstance(value, str) else repr(value)
    lower, home = text.lower(), _home_folder()
    return (
        (home != "/" and home in text)
        or any(marker in lower for marker in TOKEN_MARKERS)
        or any(secret in text for secret in _secrets())
    )


def private(value: Any) -> Any:
    """Return a value without secrets and with paths below the user's home as `~/…`.

    It may hold what JSON has, tuples and dataclasses.
    """
    secrets, home = _secrets(), _home()

    def redact(value: Any) -> Any:
        if isinstance(value, str):
            return home.sub("~", _redacted(value, secrets))
        if isinstance(value, dict):
            return {redact(name): redact(one) for name, one in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: redact(getattr(value, f.name)) for f in fields(value)})
        return type(value)(map(redact, value)) if isinstance(value, (list, tuple)) else value

    return redact(value)


def _home() -> re.Pattern[str]:
    """Return a pattern that matches the home folder at the start of a path.

    `/mnt/root` does not contain the home `/root`. The pattern matches nothing if there is no home
    folder.
    """
    home = _home_folder()
    return re.compile(rf"(?<!\w){re.escape(home)}(?![\w-])" if home != "/" else r"(?!)")


def _home_folder() -> str:
    return _home_folder_of(os.environ.get("HOME"))


@lru_cache(maxsize=4)
def _home_folder_of(_: str | None) -> str:
    """Return the home folder, which depends on this variable. To look for it takes long."""
    try:
        return str(Path.home())
    except RuntimeError:
        return "/"
