"""Redirection of a process's output to its log."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any


class _Lossy(io.FileIO):
    """A file whose writes never fail: data that cannot be written is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def redirect_output(log: Path, *, overwrite: bool = True) -> None:
    """Send everything this process prints to the run's log.

    `overwrite` truncates an existing log; otherwise the output is appended. If the log cannot be
    opened or written, the output is dropped: a full disk must not fail a run.
    """
    mode = os.O_TRUNC if overwrite else os.O_APPEND
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | mode, 0o644)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout, sys.stderr = (_text(descriptor) for descriptor in (1, 2))


def _text(descriptor: int) -> io.TextIOWrapper:
    raw = _Lossy(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
