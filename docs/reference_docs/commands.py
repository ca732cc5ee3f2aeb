"""The console command: its help texts, as argparse prints them, and the exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator

import pytest

from peft_methods.__main__ import main
from reference_docs.markdown import code, table

WIDTH = "88"  # columns of the help texts
EXIT_CODES: dict[int, str] = {
    0: "nothing failed; skipped methods count as fine",
    1: "bad data, a failed run, an error of a validity rule, or a "
    "figure that is worse than its baseline",
    2: "interrupted; the table shows what was finished",
    3: "an error within pytest or a plugin",
    4: "a bad option, recipe or baseline file; nothing was trained",
    5: "no benchmark was selected",
    6: "more warnings than pytest's own limit allows",
}


def commands() -> str:
    """Format the help of the console command and of each of its commands."""
    parts = [f"```text\n{help_of()}\n```"]
    parts += [f"## `{name}`\n\n```text\n{help_of(name)}\n```" for name in command_names()]
    return "\n\n".join(parts)


def command_names() -> list[str]:
    """Return the names of the commands, as the main help lists them."""
    return re.findall(r"^ {4}([a-z][a-z-]*)(?= {2}|$)", help_of(), re.MULTILINE)


def help_of(*command: str) -> str:
    """Return what `COMMAND --help` prints."""
    printed = io.StringIO()
    with _columns(WIDTH), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return printed.getvalue().rstrip()


@contextlib.contextmanager
def _columns(width: str) -> Iterator[None]:
    """Let argparse format for this width within the block."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = width
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def exit_codes() -> str:
    """Format the exit codes of a session."""
    names = {int(status): status.name for status in pytest.ExitCode}
    rows = [(code(number), code(name), EXIT_CODES[number]) for number, name in names.items()]
    return table(("exit code", "pytest's name", "meaning"), rows)
