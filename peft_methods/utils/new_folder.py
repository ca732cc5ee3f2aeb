"""A new folder of results that appears when all of it is written, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_methods.utils.errors import OptionError


@contextmanager
def new_folder(output: Path | None, last: str = "") -> Iterator[Path]:
    """Context manager: a folder to write to, whose files move to `output` at the end.

    They do so unless an error ends it, and `last` is the name of the file that moves last: the one
    by which others know the folder. Without `output` they are deleted. Raises `OptionError` for an
    output that holds anything or cannot be written to, before it yields if that can be known.
    """
    try:
        place = None if output is None else _place_of(output)
        scratch = tempfile.TemporaryDirectory(dir=place, prefix=".peft-methods-")
    except OSError as error:
        raise _unwritable(output, error) from None
    with scratch:
        yield Path(scratch.name)
        if output is not None:
            _move(Path(scratch.name), output, last)


def _place_of(output: Path) -> Path:
    """Return the folder itself or the nearest one above it that exists."""
    lowest = next(one for one in (output, *output.absolute().parents) if os.path.lexists(one))
    if not lowest.is_dir():
        raise OptionError(
            f"output {str(output)!r}: {str(lowest)!r} is a file; give a folder.", setting="output"
        )
    if lowest == output and any(output.iterdir()):
        raise OptionError(
            f"output {str(output)!r} is not empty. Give a new folder or an empty one.",
            setting="output",
        )
    return lowest


def _move(scratch: Path, output: Path, last: str) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        for one in sorted(scratch.iterdir(), key=lambda one: one.name == last):
            os.rename(one, output / one.name)
    except OSError as error:
        raise _unwritable(output, error) from None


def _unwritable(output: Path | None, error: OSError) -> OptionError:
    where = "the folder of temporary files" if output is None else f"output {str(output)!r}"
    return OptionError(f"{where} cannot be written to: {error.strerror}.", setting="output")
