"""The command `peft-methods`, also `python -m peft_methods`: train, report and look things up."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from peft_methods import __version__
from peft_methods.cli import (
    audit,
    cache,
    capabilities,
    convert,
    estimate,
    explain,
    listings,
    report,
    run,
)
from peft_methods.cli.closed_output import quiet_without_reader
from peft_methods.cli.command_parser import BAD_OPTION, CommandParser
from peft_methods.cli.encoding import make_printable
from peft_methods.cli.setting_help import how_to_change_in_command, with_change
from peft_methods.utils.errors import OptionError, PeftMethodsError, nearest

UNUSABLE = 2  # exit code for input that cannot be used
NAME = "peft-methods"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    For a user's mistake it is 4 (a bad name or option) or 2 (an unusable file), with one line. It
    is 141 where the output's reader left, as `head` does.
    """
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    return quiet_without_reader(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parsers()
    if not given:
        parser.print_help()
        return BAD_OPTION
    chosen = _parsed(given, parser, commands)
    try:
        code: int = chosen.run(chosen)
    except PeftMethodsError as error:
        change = how_to_change_in_command(error.setting)
        print(f"{NAME}: {with_change(str(error), change)}", file=sys.stderr)
        return BAD_OPTION if isinstance(error, OptionError) else UNUSABLE
    return code


def _parsers() -> tuple[CommandParser, dict[str, CommandParser]]:
    """Return the parser of the whole command line and those of the commands, by name."""
    parser = CommandParser(
        prog=NAME,
        description="Compare fine-tuning methods: quality, trainable parameters, time and memory. "
        "In a clone, `pytest benchmarks` does the same as `peft-methods run`.",
        epilog=f"Start with `{NAME} run`. `{NAME} COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    with contextlib.suppress(ImportError):  # the extra `completion`
        import shtab

        shtab.add_argument_to(parser, "--print-completion", help="print a shell's completion")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    run.add_command(commands)
    report.add_command(commands)
    audit.add_command(commands)
    estimate.add_command(commands)
    explain.add_command(commands)
    listings.add_commands(commands)
    capabilities.add_command(commands)
    convert.add_command(commands)
    cache.add_command(commands)
    return parser, dict(commands.choices)


def _parsed(
    given: list[str], parser: CommandParser, commands: dict[str, CommandParser]
) -> argparse.Namespace:
    """Parse the arguments. Exits with 4 and one line, which has the nearest name."""
    name = given[0]
    if not name.startswith("-") and name not in commands:
        parser.error(
            f"unknown command {name!r}.{nearest(name, commands)} Commands: {', '.join(commands)}."
        )
    own, for_pytest = given, None
    if name == "run" and "--" in given:
        end = given.index("--")
        own, for_pytest = given[:end], given[end + 1 :]
    chosen, unknown = parser.parse_known_args(own)
    if unknown:
        commands[chosen.command].refuse(unknown)
    if for_pytest is not None:
        chosen.for_pytest = for_pytest
    return chosen


if __name__ == "__main__":
    sys.exit(main())
