"""The stored matrix: a JSON file for each device, with a line for each cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from peft_methods.capabilities.cells import Cell, Result
from peft_methods.capabilities.families import FAMILIES
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.environment import FINGERPRINT_PACKAGES, package_version
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import ENGINES
from peft_methods.utils.errors import PeftMethodsError, first_line
from peft_methods.utils.files import write_whole
from peft_methods.utils.hashing import content_hash

SCHEMA = 1
SHIPPED = Path(__file__).parent / "measured"
COMMAND = "peft-methods capabilities run"
# What the result of a cell depends on, beside its method, its task and the engines.
MEASURING = ("peft_methods.capabilities.checks", "peft_methods.capabilities.reload")


class MatrixError(PeftMethodsError):
    """A matrix that cannot be read."""


@dataclass
class Matrix:
    """Results by cell, and the environment that they were measured in."""

    environment: Mapping[str, Any]
    results: dict[Cell, Result] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the file completely or not at all."""
        lines = (
            f"{json.dumps(cell.name)}: {json.dumps(result.to_json(), ensure_ascii=False)}"
            for cell, result in sorted(self.results.items())
        )
        head = json.dumps({"schema": SCHEMA, "environment": dict(self.environment)}, indent=1)
        body = ",\n  ".join(lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f'{head[:-2]},\n "cells": {{\n  {body}\n }}\n}}\n')

    @classmethod
    def read(cls, path: Path) -> Matrix:
        """Read a file. Raises `MatrixError` that says what is wrong with it."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["schema"] != SCHEMA:
                raise MatrixError(
                    f"{path} has version {values['schema']!r} of the format, and this version of "
                    f"peft-methods reads {SCHEMA}. Measure it again: `{COMMAND}`."
                )
            cells = {
                Cell.named(name): Result.from_json(one) for name, one in values["cells"].items()
            }
            return cls(dict(values["environment"]), cells)
        except FileNotFoundError:
            raise MatrixError(
                f"{path} does not exist: no matrix has been measured yet. `{COMMAND}` does it."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MatrixError(
                f"{path} is no capability matrix, or damaged ({first_line(error)}). Remove it and "
                f"measure it again: `{COMMAND}`."
            ) from None

    def stale(self) -> set[Cell]:
        """Return the cells that were measured with other code or other versions."""
        return {
            cell
            for cell, result in self.results.items()
            if not is_known(cell) or result.key != key_of(cell)
        }

    def by_method(self, method: str) -> Iterator[tuple[Cell, Result]]:
        """Yield the cells of a method."""
        return ((c, r) for c, r in sorted(self.results.items()) if c.method == method)


def is_known(cell: Cell) -> bool:
    """Whether the method, the family and the task of a cell are there."""
    return cell.method in METHODS and cell.family in FAMILIES and cell.task in TASKS


def key_of(cell: Cell) -> str:
    """Return what identifies the code and the versions that the cell's result depends on."""
    return _key(cell.method, cell.task)


@cache
def _key(method: str, task: str) -> str:
    from peft_methods.runs.code_fingerprint import code_fingerprint

    code = code_fingerprint(METHODS[method], TASKS[task], *ENGINES.values(), *MEASURING)
    extra = getattr(METHODS[method], "extra", "")
    packages = [*FINGERPRINT_PACKAGES, *([extra] if extra else [])]
    versions = {name: package_version(name) for name in packages}
    return content_hash([code, versions])[:16]


def shipped() -> list[Path]:
    """Return the files that are a part of the package, that of the CPU first."""
    return sorted(SHIPPED.glob("*.json"), key=lambda path: (path.stem != "cpu", path.stem))
