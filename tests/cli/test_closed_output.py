"""Commands whose reader leaves early, as in `peft-methods methods | head -2`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_methods.cli.closed_output import READER_LEFT, quiet_without_reader


def run_without_reader(
    folder: Path, *arguments: str, both: bool = False, buffered: bool = True
) -> tuple[int, str]:
    """Run a command whose output nobody reads. Return its exit code and its standard error.

    `both`: nobody reads standard error either, as with `2>&1`. `buffered`: the output is written
    when a buffer is full, and at the end, as Python does by default.
    """
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "peft_methods", *arguments],
            stdout=writer,
            stderr=writer if both else subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"},
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("methods",),
        ("recipes",),
        ("capabilities",),
        ("explain",),
        ("explain", "V404"),
        ("cache",),
        ("--help",),
        ("run", "--help"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_command_without_a_reader_ends_quietly_with_the_code_of_sigpipe(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    assert run_without_reader(tmp_path, *arguments) == (READER_LEFT, "")


def test_unbuffered_output_without_a_reader_ends_quietly(tmp_path: Path) -> None:
    assert run_without_reader(tmp_path, "methods", buffered=False) == (READER_LEFT, "")


def test_run_without_a_reader_ends_quietly(tmp_path: Path) -> None:
    arguments = ("run", "--", "--collect-only", "-q", "-k", "head_only")
    assert run_without_reader(tmp_path, *arguments) == (READER_LEFT, "")


def test_errors_without_a_reader_end_quietly(tmp_path: Path) -> None:
    code, _ = run_without_reader(tmp_path, "explain", "V44", both=True)
    assert code == READER_LEFT


def test_exit_code_stays_where_only_the_output_has_no_reader_and_nothing_is_printed(
    tmp_path: Path,
) -> None:
    code, errors = run_without_reader(tmp_path, "explain", "V44")
    assert code == 4
    assert "unknown check" in errors


@pytest.mark.parametrize("ended", [0, 1, 4])
def test_exit_code_of_a_command_with_a_reader_is_kept(ended: int) -> None:
    assert quiet_without_reader(lambda: ended) == ended


def fails(error: OSError) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def test_broken_pipe_elsewhere_is_an_error() -> None:
    """A worker's pipe, for example: its end must not pass for a reader that left."""
    with pytest.raises(BrokenPipeError):
        quiet_without_reader(fails(BrokenPipeError("a worker ended")))
