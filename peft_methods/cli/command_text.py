"""The command that reproduces a row of a report, as text for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from peft_methods.cli.arguments import PREFIX
from peft_methods.utils.checkout import clone


def pytest_command(options: Sequence[tuple[str, str]]) -> str:
    """Format the command with these options and values that works in the working folder.

    In a clone: `pytest benchmarks --peft-recipe embedded ...`. Elsewhere:
    `peft-methods run --recipe embedded ...`.
    """
    command, start = (
        (["pytest", "benchmarks"], PREFIX) if in_clone() else (["peft-methods", "run"], "--")
    )
    parts = (part for name, value in options for part in (f"{start}{name}", value))
    return shlex.join([*command, *parts])


def in_clone() -> bool:
    """Whether the working folder is the root of the clone that this package is imported from."""
    root = clone()
    return root is not None and Path.cwd() == root.resolve()
