"""Stack dumps of other processes.

A signal makes a process write its threads' stacks, even while Python itself is stuck.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from pathlib import Path

PACKAGES = Path(__file__).parents[3]  # the folder of this package, on sys.path or not
DUMP_SIGNAL = signal.SIGUSR1
DUMP_SECONDS = 3.0
FRAME = re.compile(r'File "(?P<path>[^"]*)", line (?P<line>\d+|\?\?\?) in (?P<function>.+)')


def enable_stack_dumps(descriptor: int) -> None:
    """Write all threads' stacks to this file on request, and when SIGSEGV or the like ends us.

    The signal handler writes them in C. Neither a held interpreter lock nor a loop in C delays it.
    """
    faulthandler.enable(file=descriptor, all_threads=True)
    faulthandler.register(DUMP_SIGNAL, file=descriptor, all_threads=True)


def request_stacks(process: int, descriptor: int) -> None:
    """Ask a process for its stacks and wait until they are written.

    A stopped process and one that has just ended never answer.
    """
    size = before = os.fstat(descriptor).st_size
    try:
        os.kill(process, DUMP_SIGNAL)
    except ProcessLookupError:
        return
    end = time.monotonic() + DUMP_SECONDS
    while time.monotonic() < end:
        time.sleep(0.1)
        now = os.fstat(descriptor).st_size
        if now == size > before:
            return
        size = now


def with_short_paths(text: str) -> str:
    """Shorten paths to start at the package, which also removes the user's folders."""
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


def innermost_frame(text: str) -> str:
    """Where the main thread is ('FUNCTION (FILE:LINE)'), and which call of ours led there; or ''.

    faulthandler writes the main thread last, its innermost_frame frame first.
    """
    frames = list(FRAME.finditer(re.split(r"^.*[Tt]hread 0x.*$", text, flags=re.MULTILINE)[-1]))
    if not frames:
        return ""
    ours = next((frame for frame in frames if frame["path"].startswith("peft_methods/")), None)
    caller = f", called by {_place(ours)}" if ours is not None and ours is not frames[0] else ""
    return _place(frames[0]) + caller


def _place(frame: re.Match[str]) -> str:
    return f"{frame['function']} ({frame['path']}:{frame['line']})"
