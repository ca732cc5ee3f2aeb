"""A group of command-line options, of pytest or of argparse."""

from __future__ import annotations

from typing import Any, Protocol


class OptionGroup(Protocol):
    """A group of options, such as pytest's `OptionGroup`."""

    def addoption(self, *opts: str, **attrs: Any) -> None:
        """Register an option."""
