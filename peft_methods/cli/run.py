"""`peft-methods run`: the packaged benchmark through pytest, from any folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft_methods.cli import benchmark
from peft_methods.cli.arguments import OPTION_GROUPS, PREFIX
from peft_methods.cli.command_parser import FOR_PYTEST
from peft_methods.cli.setting_help import options_start_with

BENCHMARK = Path(benchmark.__file__).with_name("test_finetune.py")
CONFIG = BENCHMARK.with_name("pytest.ini")
PYTEST_CACHE = Path(".peft") / "pytest_cache"


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `run`, with every option of the plugin, without its prefix."""
    command = commands.add_parser(
        "run",
        help="train and compare methods",
        description="Train every method of a recipe under one budget, print a comparison table, "
        "and store a record of each run in .peft/results of the working folder. Runs that are "
        "stored there already are not repeated. Exit code: 0, 1 for a failed run or check, 2 for "
        "an interrupt, 4 for a bad option or recipe.",
        usage="%(prog)s [OPTIONS] [-- PYTEST_OPTIONS]",
        epilog=f"{FOR_PYTEST} For example: peft-methods run --method lora,ia3 -- -x -q",
    )
    options: list[argparse.Action] = []
    for title, add_group in OPTION_GROUPS.items():
        add_group(_WithoutPrefix(command.add_argument_group(title), options))
    command.set_defaults(run=run, options=options, for_pytest=[])


class _WithoutPrefix:
    """Register the plugin's options with argparse under their names without the prefix."""

    def __init__(self, group: argparse._ArgumentGroup, options: list[argparse.Action]) -> None:
        self._group, self._options = group, options

    def addoption(self, *opts: str, **attrs: Any) -> None:
        names = (f"--{name.removeprefix(PREFIX)}" for name in opts)
        self._options.append(self._group.add_argument(*names, **attrs))


def run(arguments: argparse.Namespace) -> int:
    """Run pytest on the packaged benchmark and return its exit code."""
    import pytest

    own = [f"--rootdir={BENCHMARK.parent}", "-c", str(CONFIG), "-p", "peft_methods.plugin"]
    cache = ["-o", f"cache_dir={Path.cwd() / PYTEST_CACHE}"]
    given = [*_plugin_options(arguments), *arguments.for_pytest]
    with options_start_with("--"):
        return int(pytest.main([*own, *cache, str(BENCHMARK), *given]))


def _plugin_options(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the given options as the plugin names them: `--peft-NAME=VALUE`."""
    for option in arguments.options:
        value = getattr(arguments, option.dest)
        name = f"{PREFIX}{option.option_strings[0].removeprefix('--')}"
        if value is True:
            yield name
        elif value != option.default:
            yield from (f"{name}={one}" for one in (value if isinstance(value, list) else [value]))
