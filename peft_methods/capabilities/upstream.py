"""What libraries break: combinations that fail through no fault of the method's file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from peft_methods.capabilities.cells import CHECKS, Cell, Result
from peft_methods.recipes.schema import STRICT
from peft_methods.utils.errors import OptionError, unknown

TABLE = Path(__file__).parent / "upstream.toml"
ANY = "*"
Shown = Literal["passed", "failed", "unsupported", "upstream"]


@dataclass(frozen=True, config=STRICT)
class Fault:
    """A check that fails in some cells since a library has a fault. `*` stands for any name."""

    method: str
    family: str
    check: str
    package: str
    version: str
    symptom: str
    task: str = ANY
    precision: str = ANY

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise OptionError(unknown("check", self.check, CHECKS))

    def concerns(self, cell: Cell, check: str) -> bool:
        """Whether this is the reason why the cell's check fails."""
        names = ("method", "family", "task", "precision")
        own = ((getattr(self, name), getattr(cell, name)) for name in names)
        return check == self.check and all(one in (ANY, other) for one, other in own)

    def __str__(self) -> str:
        where = f"{self.method} on {'any model' if self.family == ANY else self.family}"
        return f"{where}, {self.check}: {self.symptom} ({self.package} {self.version})"


@cache
def faults() -> tuple[Fault, ...]:
    """Return the faults of the table, which is a part of the package."""
    with TABLE.open("rb") as file:
        return tuple(Fault(**entry) for entry in tomllib.load(file)["fault"])


def fault_of(cell: Cell, check: str, known: Sequence[Fault] | None = None) -> Fault | None:
    """Return the known fault that breaks a check of a cell, or None."""
    candidates = faults() if known is None else known
    return next((fault for fault in candidates if fault.concerns(cell, check)), None)


def shown_status(cell: Cell, result: Result, known: Sequence[Fault] | None = None) -> Shown:
    """Return the status of a cell: `upstream` if known faults explain all that failed."""
    explained = [fault_of(cell, check, known) is not None for check in result.failed]
    return "upstream" if explained and all(explained) else result.status


def mended(results: Mapping[Cell, Result], known: Sequence[Fault] | None = None) -> list[Fault]:
    """Return the known faults that concern measured cells, of which none fails any more."""
    found = []
    for fault in faults() if known is None else known:
        concerned = [
            fault.check in result.failed
            for cell, result in results.items()
            if result.status != "unsupported" and fault.concerns(cell, fault.check)
        ]
        if concerned and not any(concerned):
            found.append(fault)
    return found
