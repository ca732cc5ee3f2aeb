"""The parser of commands. Its errors are one line, with the nearest name and exit code 4."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from peft_methods.utils.errors import nearest

BAD_OPTION = 4  # exit code for a bad name or option, as pytest's for a usage error
FOR_PYTEST = "Options of pytest itself follow --."


class CommandParser(argparse.ArgumentParser):
    """A parser for a command without abbreviations, whose errors name the way out."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 4."""
        sentence = message if message.endswith((".", "?")) else f"{message}."
        print(f"{self.prog}: {sentence} See `{self.prog} --help`.", file=sys.stderr)
        sys.exit(BAD_OPTION)

    def refuse(self, unknown: Iterable[str]) -> NoReturn:
        """Refuse arguments that no option takes, with the nearest option of each.

        A command that passes arguments on to pytest says how to give those.
        """
        names = [one.partition("=")[0] for one in unknown]
        options = [name for name in names if name.startswith("-")]
        if not options:
            self.error(f"unexpected argument {names[0]!r}.")
        found = [f"unknown option {name!r}.{self._nearest_option(name)}" for name in options]
        hint = [FOR_PYTEST] if self.get_default("for_pytest") is not None else []
        self.error(" ".join([*found, *hint]))

    def _nearest_option(self, name: str) -> str:
        """Return the nearest option; '' for a single letter, which is near to any other."""
        known = [own for action in self._actions for own in action.option_strings]
        return nearest(name, known) if name.startswith("--") else ""
