"""Commands end quietly when their reader leaves, as in `peft-methods methods | head -2`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator

READER_LEFT = 141  # exit code: 128 + 13, which shells show for a program that SIGPIPE ended


def quiet_without_reader(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; 141 if its output had no reader any more.

    SIGPIPE itself stays off, since a run would also end at a broken pipe of one of its workers.
    Raises `BrokenPipeError` for such a pipe.
    """
    try:
        try:
            return command()
        finally:  # `--help` exits by itself
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        unread = list(_without_reader())
        if not unread:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in unread:  # Python flushes again at the end
            os.dup2(nowhere, output)
        os.close(nowhere)
        return READER_LEFT


def _without_reader() -> Iterator[int]:
    """Yield the descriptors of standard output and errors that are pipes without a reader."""
    for stream in (sys.stdout, sys.stderr):
        try:
            output = stream.fileno()
        except (OSError, ValueError):  # a stream without a file, as in tests
            continue
        waiting = select.poll()
        waiting.register(output, 0)
        if any(event & select.POLLERR for _, event in waiting.poll(0)):
            yield output
