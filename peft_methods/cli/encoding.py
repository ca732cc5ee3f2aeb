"""Text for terminals and files that cannot show every character."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ERRORS = "peft_methods.plain"  # name of the error handler
PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "±": "+-",
    "×": "x",
    "·": "*",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "≈": "~",
    "✓": "ok",
    "•": "*",
    "█": "#",
    "━": "-",
    "─": "-",
}


def make_printable(stream: Any) -> None:
    """Let a text stream write characters outside its encoding as plain ones, or as escapes.

    Otherwise Python refuses to print them, and pytest escapes the whole text, line breaks too.
    """
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        codecs.register_error(ERRORS, _plain)
        stream.reconfigure(errors=ERRORS)


def make_terminal_printable(config: pytest.Config) -> None:
    """Do the same for the stream of pytest's terminal."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        make_printable(reporter._tw._file)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or _escaped(one) for one in text), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
