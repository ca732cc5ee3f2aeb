"""The command line options, as the plugin registers them."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from peft_methods.api import ARGUMENT_NAMES, compare
from peft_methods.cli.arguments import add_options
from peft_methods.cli.setting_help import OPTION_NAMES
from reference_docs.markdown import code, table

PREFIX = "--peft-"
SAME = {"set": "settings"}  # an option that repeats, and the argument that takes a list


class _Recorder:
    """Stands in for pytest's parser and its group, and keeps the options as argparse does."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(add_help=False)

    def getgroup(self, *names: str, **more: Any) -> _Recorder:
        """Return the only group."""
        return self

    def addoption(self, *names: str, **settings: Any) -> None:
        """Keep one option."""
        self.parser.add_argument(*names, **settings)

    def addini(self, *names: str, **settings: Any) -> None:
        """Ignore a setting of pytest's configuration file."""


def options() -> list[argparse.Action]:
    """Return every option of the plugin, in the order of its registration."""
    recorder = _Recorder()
    add_options(recorder)  # type: ignore[arg-type]  # it has what add_options needs
    return recorder.parser._actions


def option_table() -> str:
    """Format every option: its value, its meaning, and the argument of `compare`."""
    rows = [
        (
            code(f"{option.option_strings[-1]} {option.metavar or ''}".strip()),
            _help(option),
            _argument(option.option_strings[-1].removeprefix(PREFIX)),
        )
        for option in options()
    ]
    return table(("option", "meaning", "argument of `compare`"), rows)


def _help(option: argparse.Action) -> str:
    return (option.help or "") % {**vars(option), "prog": "pytest"}


def _argument(option: str) -> str:
    """Return the argument of `compare` that does the same as an option, or '–'."""
    name = option.replace("-", "_")
    settings = {value: key for key, value in OPTION_NAMES.items()}
    candidates = (SAME.get(name, name), settings.get(name, name))
    parameters = inspect.signature(compare).parameters
    names = [ARGUMENT_NAMES.get(one, one) for one in (*candidates, name)]
    return next((code(one) for one in names if one in parameters), "–")
