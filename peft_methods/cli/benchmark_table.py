"""pytest-benchmark's own table, which shows our benchmarks only if an option asks for it.

It repeats the training time, in a table that is wider than most terminals.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from peft_methods.cli.rounds import TrainingClock

if TYPE_CHECKING:
    import pytest

# Options that only change what the table shows, and comparisons, whose result it is.
DISPLAY_OPTIONS = tuple(
    f"--benchmark-{name}"
    for name in (
        "columns",
        "compare",
        "cprofile",
        "csv",
        "group-by",
        "histogram",
        "name",
        "sort",
        "time-unit",
        "verbose",
    )
)


def is_wanted(config: pytest.Config) -> bool:
    """Whether pytest was called with an option on the display of benchmarks."""
    configured = config.getini("addopts")
    arguments = [
        *(configured if isinstance(configured, list) else shlex.split(str(configured))),
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *config.invocation_params.args,
    ]
    return any(str(argument).startswith(DISPLAY_OPTIONS) for argument in arguments)


def without_ours(groups: list[tuple[Any, list[dict[str, Any]]]]) -> list[Any]:
    """Return pytest-benchmark's groups without benchmarks that train."""
    kept = [(name, [one for one in benchmarks if not _is_ours(one)]) for name, benchmarks in groups]
    return [(name, benchmarks) for name, benchmarks in kept if benchmarks]


def _is_ours(benchmark: dict[str, Any]) -> bool:
    return bool(benchmark["options"]["timer"] == repr(TrainingClock()))
