"""`python -m peft_methods COMMAND`: commands that need no training.

To train, run `pytest benchmarks`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peft_methods.cli import audit, report
from peft_methods.cli.setting_help import how_to_change_in_command, with_change
from peft_methods.utils.errors import PeftMethodsError

UNUSABLE = 2  # exit code for input that cannot be used


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2, with one line, for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m peft_methods",
        description="Compare fine-tuning methods. To train, run: pytest benchmarks.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    audit.add_command(commands)
    report.add_command(commands)
    chosen = parser.parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
    except PeftMethodsError as error:
        change = how_to_change_in_command(error.setting)
        print(f"{parser.prog}: {with_change(str(error), change)}", file=sys.stderr)
        return UNUSABLE
    return code


if __name__ == "__main__":
    sys.exit(main())
