"""What is worth keeping from run to run, under the hash of all it depends on. A file that cannot be read is made anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from peft_methods.embedded import cache_folder

T = TypeVar("T")
KEPT = 64  # files of a kind; the ones not used for longest go first


def remembered(
    kind: str,
    key: Any,
    make: Callable[[], T],
    *,
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
    suffix: str,
) -> T:
    """What `make` gives, from `kind`'s folder in the user's cache where it was kept under this key (any JSON value).

    Nothing here may fail a run: a damaged file is made anew, and where nothing can be written nothing is kept.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / kind / f"{digest}{suffix}"
    if path.is_file():
        with contextlib.suppress(Exception):
            value = read(path)
            os.utime(path)
            return value
    value = make()
    with contextlib.suppress(OSError):
        _keep(value, path, write)
    return value


def remembered_value(kind: str, key: Any, make: Callable[[], T]) -> T:
    """`remembered`, for what JSON can hold."""
    return remembered(kind, key, make, read=_read_json, write=_write_json, suffix=".json")


def _read_json(path: Path) -> Any:
    text, sha256 = json.loads(path.read_text(encoding="utf-8"))
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged")
    return json.loads(text)


def _write_json(value: Any, path: Path) -> None:
    """The value's text and its hash: a part of a number, or one with another digit, would be a number too."""
    text = json.dumps(value)
    path.write_text(json.dumps([text, hashlib.sha256(text.encode()).hexdigest()]), encoding="utf-8")


def _keep(value: T, path: Path, write: Callable[[T, Path], None]) -> None:
    """Whole or not at all: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        write(value, Path(beside))
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
    by_use = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda file: file.stat().st_mtime)
    for old in by_use[:-KEPT]:
        old.unlink(missing_ok=True)
