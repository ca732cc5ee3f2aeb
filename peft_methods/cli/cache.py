"""`peft-methods cache`: where downloads and computed values are kept, how large, and clearing."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft_methods.utils.cache import cache_folder, cache_notice
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.units import format_bytes

PARTS = {
    "minilm": "the bundled model",
    "sentiment": "the bundled data",
    "smollm2": "the bundled decoder, converted",
    "tokens": "tokenized data sets",
    "overlaps": "shares of texts that training texts contain",
    "untrained": "scores of models before training",
    "quantized": "digests of quantized weights",
    "compiled": "compiled GPU code",
    "bytecode": "libraries installed without bytecode",
    "matmul_rates": "measured speed of this machine's GPUs",
    "device_probes": "measured rates of devices, for estimates",
    "flops": "FLOPs of training steps",
    "code": "which code each run depends on",
    "predictions": "estimates of runs",
    "prepared": "checks of recipes",
    "verified": "which results fit their predictions",
}


class CacheError(PeftMethodsError):
    """A cache that cannot be removed."""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `cache`."""
    command = commands.add_parser(
        "cache",
        help="show or clear the cache of downloads and computed values",
        description="Show the cache's folder and the size of its parts. Records are not in it: "
        "they are in .peft/results of the folder where a comparison was run. "
        "XDG_CACHE_HOME moves the cache.",
    )
    command.add_argument(
        "--clear",
        action="store_true",
        help="remove all of it and list what was removed; what is needed is made again",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the cache's folder and the size of its parts, after removing them with `--clear`.

    Raises `CacheError` if something cannot be removed.
    """
    if notice := cache_notice():
        print(notice, file=sys.stderr)
    folder = cache_folder(warn=False)
    sizes = {path: _size(path) for path in _parts(folder)}
    if not sizes:
        print(f"{folder} is empty")
        return 0
    print(f"{'removed from ' if arguments.clear else ''}{folder}:")
    for path, size in sizes.items():
        if arguments.clear:
            _remove(path)
        print(f"  {path.name:<13} {format_bytes(size):>9}  {PARTS.get(path.name, '')}".rstrip())
    print(f"  {'total':<13} {format_bytes(sum(sizes.values())):>9}")
    if not arguments.clear:
        print("Remove it with: peft-methods cache --clear")
    return 0


def _parts(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"{folder} cannot be read: {error.strerror}.") from None


def _files(path: Path) -> Iterator[Path]:
    yield from (path.rglob("*") if path.is_dir() and not path.is_symlink() else [path])


def _size(path: Path) -> int:
    total = 0
    for file in _files(path):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise CacheError(f"{path} cannot be removed: {error.strerror}.") from None
