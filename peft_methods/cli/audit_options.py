"""The options of `peft-methods audit` that say how a table is read: --table and --map."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from peft_methods.utils.errors import OptionError


def add_reading_options(command: argparse.ArgumentParser) -> None:
    """Add `--table` and `--map`."""
    command.add_argument(
        "--table",
        type=int,
        metavar="N",
        help="read only the Nth table of the file, from 1; without it all that name methods",
    )
    command.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="COLUMN=FIELD",
        help='say what a column holds, such as "VRAM (GB)=peak_memory"; may be repeated',
    )


def mapping_of(texts: Sequence[str]) -> dict[str, str]:
    """Return header -> field from `COLUMN=FIELD`. Raises `OptionError` for any other form."""
    found = {}
    for text in texts:
        header, equals, field = text.rpartition("=")
        if not equals or not header.strip() or not field.strip():
            raise OptionError(
                f'--map {text!r} is not COLUMN=FIELD. Write --map "VRAM (GB)=peak_memory".'
            )
        found[header.strip()] = field.strip()
    return found
