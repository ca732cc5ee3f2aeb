"""The command that reproduces a row of a report, as text for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def pytest_command(options: Sequence[tuple[str, str]]) -> str:
    """Format options and their values: `pytest benchmarks --peft-recipe embedded ...`."""
    parts = (part for name, value in options for part in (f"--peft-{name}", value))
    return shlex.join(["pytest", "benchmarks", *parts])
