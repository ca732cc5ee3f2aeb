"""File helpers: paths named by a source, locks, and writing a file completely or not at all."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable
from os.path import isabs
from pathlib import Path
from typing import IO


def path_of(source: str) -> Path | None:
    """Return the existing file or folder that a source names.

    None if it does not exist or cannot be a path.
    """
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user's home
        return None


def is_only_a_path(source: str) -> bool:
    """Whether a source can only be a path, existing or not, and no hub id."""
    return source.startswith((".", "~")) or isabs(source)


def lock_file(folder: int) -> bool:
    """Lock an open file or folder and wait for the lock. False where locks do not work."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def read_small(path: Path | str) -> bytes:
    """Return the content of a small file, in half the time that `Path.read_bytes` takes."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file completely or not at all."""
    atomically(path, lambda file: file.write(content))


def write_whole(path: Path, text: str) -> None:
    """Write a user's file completely or not at all.

    A path that is no regular file (a pipe, a device) is written to directly. Links are followed.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        atomically(path, lambda file: file.write(text.encode()))


def atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file beside `path`, sync it, and rename it to `path`."""
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    # Not mkstemp: only the owner could read its files.
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
