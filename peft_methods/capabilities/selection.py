"""The part of the matrix that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.capabilities.cells import Cell
from peft_methods.capabilities.families import FAMILIES, family_named
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import methods_named
from peft_methods.tasks.registry import TASKS


@dataclass(frozen=True)
class Selection:
    """Methods, families and tasks; empty: all. Raises `OptionError` for an unknown name.

    Methods may be given as families of methods or as patterns, too.
    """

    methods: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        methods = tuple(name for word in self.methods for name in methods_named(word))
        object.__setattr__(self, "methods", methods)
        for family in self.families:
            family_named(family)
        for task in self.tasks:
            TASKS[task]

    def names(self) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        """Return the methods, families and tasks, in their usual order."""
        return (
            [one for one in METHODS if one in (self.methods or METHODS)],
            [one for one in FAMILIES if one in (self.families or FAMILIES)],
            [one for one in TASKS if one in (self.tasks or TASKS)],
        )

    def has(self, cell: Cell) -> bool:
        """Whether a cell is asked for."""
        methods, families, tasks = self.names()
        return cell.method in methods and cell.family in families and cell.task in tasks
