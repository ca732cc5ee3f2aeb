"""Command lines that pytest understands otherwise than they are meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from peft_methods.cli.arguments import OPTION_GROUPS, PREFIX
from peft_methods.cli.command_text import in_clone
from peft_methods.utils.errors import OptionError


class _NamesWithValues:
    """A group of options that keeps the names of those with a value."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def addoption(self, *opts: str, **attrs: Any) -> None:
        if attrs.get("action", "append") == "append":
            self.names.update(opts)


def _own(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield our options as they were typed, and the value of those with a blank before it."""
    known = _NamesWithValues()
    for add in OPTION_GROUPS.values():
        add(known)
    for place, argument in enumerate(arguments):
        if argument.startswith(PREFIX):
            has_blank = argument in known.names and place + 1 < len(arguments)
            yield argument, arguments[place + 1] if has_blank else None


def check_blanks(config: pytest.Config) -> None:
    """Raise `OptionError` if a blank before an option's value moved pytest's root folder.

    pytest looks for its root before it knows our options, and takes such a value that exists as a
    file or folder for a place of tests: it then finds other settings, or none.
    """
    if config.option.rootdir or config.option.inifilename or not _root_is_unusual(config):
        return
    for option, value in _own(config.invocation_params.args):
        if value is not None and Path(config.invocation_params.dir, value).exists():
            raise OptionError(
                f"after the blank in '{option} {value}' pytest takes {value!r} for a place of "
                f"tests, which makes {str(config.rootpath)!r} its root folder. "
                f"Write {option}={value}."
            )


def _root_is_unusual(config: pytest.Config) -> bool:
    """Whether the root is neither here nor below, nor a parent folder with pytest's settings."""
    root, here = config.rootpath, Path(config.invocation_params.dir)
    if root.is_relative_to(here):
        return False
    return config.inipath is None or not here.is_relative_to(root)


def check_used(config: pytest.Config) -> None:
    """Raise `UsageError`, which says what to run, if a session without benchmarks has options."""
    own = list(_own(config.invocation_params.args))
    if not own or hasattr(config, "workerinput"):
        return
    names = ", ".join(dict.fromkeys(option.partition("=")[0] for option, _ in own))
    words = [word for pair in own for word in pair if word is not None]
    if in_clone():
        command = ["pytest", "benchmarks", *words]
    else:
        command = ["peft-methods", "run", *(_without_prefix(word) for word in words)]
    raise pytest.UsageError(
        f"{names}: no test that was collected takes the fixture `finetune`, so nothing would be "
        f"compared. Run: {shlex.join(command)}"
    )


def _without_prefix(word: str) -> str:
    return f"--{word.removeprefix(PREFIX)}" if word.startswith(PREFIX) else word
