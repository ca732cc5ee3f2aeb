"""A cache on disk: values stored under the hash of everything they depend on.

A file that cannot be read is made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

T = TypeVar("T")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_FILES = 64  # of each kind, unless its caller says otherwise


def cached(
    kind: str,
    key: Any,
    make: Callable[[], T],
    *,
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
    suffix: str,
    max_files: int = MAX_FILES,
    fresh: bool = False,
) -> T:
    """Return the cached value of this key, or make, store and return it; `fresh` makes it again.

    The key is any JSON value; each `kind` has a folder in the user's cache, which holds at most
    `max_files`: the least recently used are deleted first. Caching never fails a run: a damaged
    file is made again, and where nothing can be written nothing is stored.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / kind / f"{digest}{suffix}"
    if not fresh and path.is_file():
        with contextlib.suppress(Exception):
            value = read(path)
            os.utime(path)
            return value
    value = make()
    with contextlib.suppress(OSError):
        _store(value, path, write, max_files)
    return value


def cached_value(
    kind: str,
    key: Any,
    make: Callable[[], T],
    max_files: int = MAX_FILES,
    *,
    fresh: bool = False,
) -> T:
    """Like `cached`, for JSON values."""
    return cached(
        kind,
        key,
        make,
        read=_read_json,
        write=_write_json,
        suffix=".json",
        max_files=max_files,
        fresh=fresh,
    )


def _read_json(path: Path) -> Any:
    text, sha256 = json.loads(path.read_text(encoding="utf-8"))
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged")
    return json.loads(text)


def _write_json(value: Any, path: Path) -> None:
    """Write the value's text and its hash.

    Without the hash a truncated number, or one with a changed digit, would be read as valid.
    """
    text = json.dumps(value)
    path.write_text(json.dumps([text, hashlib.sha256(text.encode()).hexdigest()]), encoding="utf-8")


def _store(value: T, path: Path, write: Callable[[T, Path], None], max_files: int) -> None:
    """Store the value atomically: write a temporary file, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        write(value, Path(temporary))
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    by_use = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda file: file.stat().st_mtime)
    for old in by_use[:-max_files]:
        old.unlink(missing_ok=True)


def cache_folder(part: str = "", *, warn: bool = True) -> Path:
    """Return the folder for downloaded files: the user's cache folder, or else a private one.

    A folder that cannot be written (another user's, a home that does not exist) is used only for a
    `part` that it already holds. Otherwise the private folder takes its place, with a warning that
    names both; without `warn` the caller shows `cache_notice()`. It is a temporary folder of this
    user, the same in all processes.
    """
    usual = _usual_folder()
    if not _problem(str(usual)) or (part and _is_readable(usual / part)):
        return usual
    if warn:
        _warn(str(usual))
    return _private_folder(str(usual))


def cache_notice() -> str:
    """Return the message that another folder than the user's cache folder is used, or ''.

    For sessions, whose workers give the warning where nobody sees it, and for commands.
    """
    usual = str(_usual_folder())
    return _notice(usual) if _problem(usual) else ""


def _usual_folder() -> Path:
    return Path(platformdirs.user_cache_dir("peft-methods"))


@cache
def _warn(usual: str) -> None:
    """Warn once in each process."""
    warnings.warn(_notice(usual), stacklevel=3)


def _notice(usual: str) -> str:
    return (
        f"the cache folder {usual} cannot be written ({_problem(usual)}). Files are cached in "
        f"{_private_folder(usual)} instead. Set XDG_CACHE_HOME to a folder that you can write to."
    )


@cache
def _problem(folder: str) -> str:
    """Return why files cannot be written to this folder, or ''. It is made if it does not exist.

    A full disk is no reason to go elsewhere: whoever writes reports it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return "" if error.errno in DISK_FULL else error.strerror or type(error).__name__


def _is_readable(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


@cache
def _private_folder(usual: str) -> Path:
    """Return a temporary folder that only this user can read and write."""
    folder = Path(tempfile.gettempdir()) / f"peft-methods-cache-{os.geteuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        folder = Path(tempfile.mkdtemp(prefix="peft-methods-cache-"))
    return folder


def _is_private(folder: Path) -> bool:
    """Whether this is a folder, not a link to one, that belongs to this user alone."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    )
