"""`peft-methods explain V404`: what a check means, and what to do about it."""

from __future__ import annotations

import argparse
from typing import Any

from peft_methods.cli.setting_help import how_to_change_in_command


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `explain`."""
    command = commands.add_parser(
        "explain",
        help="what a check means, its evidence and what to do",
        description="Explain a check by its id: why it matters, the evidence that it gives, and "
        "what to do. Without an id, list all checks. Exit code: 0, or 4 for an unknown id.",
    )
    command.add_argument("check", nargs="?", metavar="ID", help="for example V404")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one check, or the list of all. Raises `OptionError` for an unknown id."""
    from peft_methods.report.text.explanation import explanation
    from peft_methods.report.text.rules import rules_text

    if arguments.check is None:
        print(rules_text(f"peft-methods run {how_to_change_in_command('silence')}"))
    else:
        print(explanation(arguments.check))
    return 0
