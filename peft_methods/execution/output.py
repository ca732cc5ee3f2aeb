"""Where a process's output goes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any


class _Lossy(io.FileIO):
    """A file that takes everything, and keeps what it can."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def redirect_output(log: Path, *, anew: bool = True) -> None:
    """What libraries print goes to the cell's log, begun `anew` or gone on with, not between the parent's lines.

    It goes nowhere where there can be no log, or where that can grow no more: a disk that is full is no reason for a cell to fail.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND), 0o644)
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
