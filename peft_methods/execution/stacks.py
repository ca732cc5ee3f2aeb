"""What a process is doing: it writes the stacks of its threads when asked by a signal, even where Python itself is stuck."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from pathlib import Path

PACKAGES = Path(__file__).parents[2]  # where this package lies, on sys.path or not
ASK = signal.SIGUSR1
ANSWER_SECONDS = 3.0
FRAME = re.compile(r'File "(?P<path>[^"]*)", line (?P<line>\d+|\?\?\?) in (?P<function>.+)')


def answer_for_stacks(descriptor: int) -> None:
    """Write all threads' stacks to this file whenever asked, and when a signal such as SIGSEGV ends the process.

    The answer is written from within the signal's handler in C: neither a held interpreter lock nor a loop in C keeps it back.
    """
    faulthandler.enable(file=descriptor, all_threads=True)
    faulthandler.register(ASK, file=descriptor, all_threads=True)


def ask_for_stacks(process: int, descriptor: int) -> None:
    """Ask a process, and wait until it has written its answer; a stopped one never does, nor one that has just ended."""
    size = before = os.fstat(descriptor).st_size
    try:
        os.kill(process, ASK)
    except ProcessLookupError:
        return
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        time.sleep(0.1)
        now = os.fstat(descriptor).st_size
        if now == size > before:
            return
        size = now


def shortened(text: str) -> str:
    """Paths from the package on, as they are on any machine: nothing of the user's folders."""
    return FRAME.sub(
        lambda found: found[0].replace(found["path"], _from_package(found["path"])), text
    )


def _from_package(path: str) -> str:
    roots = [
        root
        for root in (*sys.path, str(PACKAGES))
        if root and path.startswith(f"{root.rstrip('/')}/")
    ]
    return os.path.relpath(path, max(roots, key=len)) if roots else Path(path).name


def innermost(text: str) -> str:
    """Where the main thread is ('in FUNCTION, FILE:LINE'), and from where of this package; nothing without stacks.

    The main thread is the one written last, its innermost frame first.
    """
    frames = list(FRAME.finditer(re.split(r"^.*[Tt]hread 0x.*$", text, flags=re.MULTILINE)[-1]))
    if not frames:
        return ""
    ours = next((frame for frame in frames if frame["path"].startswith("peft_methods/")), None)
    caller = f", called by {_place(ours)}" if ours is not None and ours is not frames[0] else ""
    return _place(frames[0]) + caller


def _place(frame: re.Match[str]) -> str:
    return f"{frame['function']} ({frame['path']}:{frame['line']})"
