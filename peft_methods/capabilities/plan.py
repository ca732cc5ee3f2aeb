"""Which combinations are measured: each method on each family, and a pairwise covering design."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft_methods.capabilities.cells import PRECISIONS, Cell, Result
from peft_methods.capabilities.covering import Row, covering
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.toy import Ground, architecture_or_reason, method_of
from peft_methods.models.architecture import Architecture

LAST = ("plain", "checkpointed")


def main_cells(methods: Sequence[str], families: Sequence[str] = tuple(FAMILIES)) -> list[Cell]:
    """Return each method on each family, in fp32 on the family's main task."""
    return [
        Cell(method, family, FAMILIES[family].main_task)
        for family in families
        for method in methods
    ]


@dataclass(frozen=True)
class Fits:
    """Which families can do which tasks: their architectures, or the reasons.

    Each family is loaded once with each task's head.
    """

    ground: Ground
    device: str
    found: Mapping[tuple[str, str], Architecture | str]

    @classmethod
    def loaded(
        cls, ground: Ground, device: str, families: Sequence[str], tasks: Sequence[str]
    ) -> Fits:
        """Load each of the families with the head of each of the tasks."""
        found = {
            (family, task): architecture_or_reason(Cell("", family, task), ground)
            for family in families
            for task in tasks
        }
        return cls(ground, device, found)

    def reason(self, cell: Cell) -> str | None:
        """Return why the combination is unsupported, or None.

        A method that cannot be asked is measured, so that it fails by name.
        """
        architecture = self.found[cell.family, cell.task]
        if isinstance(architecture, str):
            return architecture
        with contextlib.suppress(Exception):  # of any package's method
            method = method_of(cell)
            return method.unsupported(architecture, self.device)
        return None


def plan(
    methods: Sequence[str], families: Sequence[str], tasks: Sequence[str], fits: Fits
) -> dict[Cell, Result | None]:
    """Return the cells to measure. Those that are unsupported have their result already.

    Each method is tried on each family in its main task. Each pair of a method, family, task,
    precision and checkpointing occurs in some cell, if any supported combination has it.
    """
    cells = [one for one in main_cells(methods, families) if one.task in tasks]
    reasons: dict[tuple[str, str, str], str | None] = {}

    def reason(cell: Cell) -> str | None:
        key = cell.method, cell.family, cell.task
        if key not in reasons:
            reasons[key] = fits.reason(cell)
        return reasons[key]

    supported = [_row(cell) for cell in cells if reason(cell) is None]
    factors = (tuple(methods), tuple(families), tuple(tasks), PRECISIONS, LAST)
    more = covering(factors, lambda row: reason(_cell(row)) is None, supported)
    planned = [*cells, *map(_cell, more)]
    return {
        cell: None if (found := reason(cell)) is None else Result(reason=found) for cell in planned
    }


def _row(cell: Cell) -> Row:
    return tuple(cell.name.split("/"))


def _cell(row: Row) -> Cell:
    return Cell.named("/".join(row))
