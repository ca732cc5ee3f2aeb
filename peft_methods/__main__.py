"""`python -m peft_methods COMMAND`: commands that need no training.

To train, run `pytest benchmarks`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peft_methods.cli import audit, report
from peft_methods.utils.errors import PeftMethodsError


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
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return audit.UNREADABLE
    return code


if __name__ == "__main__":
    sys.exit(main())
