"""Where a process's output goes."""

from __future__ import annotations

import os
from pathlib import Path


def redirect_output(log: Path) -> None:
    """What libraries print goes to the cell's log, not between the parent's lines; nowhere where there can be no log: the disk is full."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
