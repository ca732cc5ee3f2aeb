"""`peft-methods convert FOLDER --rank R`: a saved adapter as LoRA, and what it loses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft_methods.cli.parsing import names_of, path_of
from peft_methods.cli.setting_help import with_change
from peft_methods.utils.errors import OptionError, PeftMethodsError, unknown
from peft_methods.utils.sanitize import visible

OPTIONS = {
    "data.source": "--data",
    "data.test_source": "--test-data",
    "model.source": "--base",
    "trust_remote_code": "--trust-remote-code",
}  # the options of this command for settings that errors name


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `convert`."""
    command = commands.add_parser(
        "convert",
        help="convert a saved adapter to LoRA, and measure what it loses",
        description="Convert an adapter that was saved with --save-models (--peft-save-models of "
        "pytest) to LoRA of one or several ranks, and compare both on the test rows of its recipe. "
        "More programs read LoRA than any other adapter. Exit code: 0, 2 for a folder whose "
        "adapter cannot be converted or whose data or model cannot be read, 4 for a bad option.",
    )
    command.add_argument("folder", type=Path, help="the folder of a saved adapter")
    command.add_argument(
        "--to", metavar="METHOD", help="the method to convert to: lora (the only one)"
    )
    command.add_argument(
        "--rank",
        action="append",
        default=[],
        required=True,
        metavar="A,B",
        help="ranks: a higher rank loses less and has more parameters",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="save the converted adapter in this new folder, of several ranks in a folder each",
    )
    command.add_argument(
        "--data", metavar="SOURCE", help="the data, if they have moved, or other data"
    )
    command.add_argument(
        "--test-data",
        metavar="SOURCE",
        help="the data of data.test_source, if the recipe has such and they have moved",
    )
    command.add_argument("--base", metavar="SOURCE", help="the base model, if it has moved")
    command.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that comes with the base model",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table of an adapter and its conversions. Raises `PeftMethodsError`."""
    ranks = [_rank(name) for name in names_of(arguments.rank, "rank")]
    for name in ("output", "data", "test_data", "base"):
        if getattr(arguments, name) == "":
            raise OptionError(
                f"--{name.replace('_', '-')} is empty. Name a place, or leave it out."
            )
    output = None if arguments.output is None else path_of(arguments.output, "output")
    from peft_methods.methods.conversion import TARGETS

    if arguments.to not in {None, *TARGETS}:
        raise OptionError(unknown("method for --to", arguments.to, TARGETS))
    import torch

    from peft_methods.profiling.environment import usable_cores
    from peft_methods.report.text.conversion import conversion_text
    from peft_methods.runs.conversion import convert

    with _explained():
        conversion = convert(
            arguments.folder,
            ranks,
            output=output,
            data=arguments.data,
            test_data=arguments.test_data,
            base=arguments.base,
            device="cuda" if torch.cuda.is_available() else "cpu",
            threads=usable_cores(),
            trust_remote_code=arguments.trust_remote_code,
        )
    print("\n".join(map(visible, conversion_text(conversion).splitlines())))
    return 0


@contextmanager
def _explained() -> Iterator[None]:
    """Context manager: errors name the option of this command that changes their setting."""
    try:
        yield
    except PeftMethodsError as error:
        if option := OPTIONS.get(error.setting):
            error.args = (with_change(str(error), option), *error.args[1:])
            error.setting = ""
        raise


def _rank(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) >= 1):
        raise OptionError(
            f"rank {text!r} should be a whole number from 1 to 999,999. Write ranks as 8,16."
        )
    return int(text)
