"""The parser of commands. Its errors are one line, with the nearest name and exit code 4."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from peft_methods.utils.errors import nearest

BAD_OPTION = 4  # exit code for a bad name or option, as pytest's for a usage error


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
        """Refuse arguments that no option takes, with the nearest option of each."""
        names = [one.partition("=")[0] for one in unknown]
        known = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", self.format_help())
        options = [
            f"unknown option {name!r}.{nearest(name, known)}"
            for name in names
            if name.startswith("-")
        ]
        self.error(" ".join(options) or f"unexpected argument {names[0]!r}.")
