"""The results of a cell's checks while they are made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from peft_methods.capabilities.cells import Result
from peft_methods.utils.errors import first_line


class Broken(Exception):
    """A check that does not hold, with the reason."""


class Unneeded(Exception):
    """A check that does not apply, with the reason."""


@dataclass
class Findings:
    """The results of checks so far."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unneeded: dict[str, str] = field(default_factory=dict)
    unusable: bool = False

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Context manager of one check: any error but `Unneeded` means that it failed."""
        try:
            yield
        except Unneeded as reason:
            self.unneeded[name] = str(reason)
        except Exception as error:  # of any library
            self.failed[name] = str(error) if isinstance(error, Broken) else first_line(error)
        else:
            self.passed.append(name)

    def result(self, started: float) -> Result:
        """Return what was found."""
        return Result(
            tuple(self.passed),
            dict(self.failed),
            dict(self.unneeded),
            seconds=round(time.perf_counter() - started, 2),
            unusable=self.unusable,
        )


def some(problem: str, names: tuple[str, ...]) -> str:
    """Describe a problem of several weights by their number and the first of them."""
    return f"{len(names)} {problem}: {names[0]}{', …' if len(names) > 1 else ''}"
