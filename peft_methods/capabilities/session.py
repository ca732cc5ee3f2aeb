"""Measure the matrix: plan, reuse what is stored, measure the rest, and write after each cell."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft_methods.capabilities.cells import Cell, Result
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.matrix import Matrix, key_of
from peft_methods.capabilities.plan import Fits, main_cells, plan
from peft_methods.capabilities.processes import Job, Measuring
from peft_methods.capabilities.selection import Selection
from peft_methods.capabilities.toy import Ground
from peft_methods.profiling.environment import check_device, describe
from peft_methods.runs.prepare import set_up_process
from peft_methods.tasks.registry import TASKS

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How the matrix is measured.

    `limit` is in seconds: no cell begins after it. With `only_engines` the one check is that the
    engines agree, for each method on each family in its main task. `fresh` measures everything
    anew.
    """

    device: str = "cpu"
    workers: int = 2
    only_engines: bool = False
    fresh: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Session:
    """One call of the command: the cells that are wanted, and the file that holds them."""

    selection: Selection
    options: Options
    path: Path
    report: Report

    def run(self) -> Matrix:
        """Measure what is wanted and not stored. Returns the whole matrix, as it is in the file."""
        check_device(self.options.device)
        started = time.monotonic()
        matrix = self._stored()
        set_up_process(1, device="cpu")
        with tempfile.TemporaryDirectory(prefix="peft-capabilities-") as root:
            families = self.selection.families or tuple(FAMILIES)
            ground = Ground.made(Path(root), families, TASKS)
            planned = self._planned(ground)
            left = self._take_known(matrix, planned)
            self.report(
                f"{len(planned)} combinations; {len(planned) - len(left)} are known or unsupported,"
                f" {len(left)} to measure"
            )
            matrix.write(self.path)
            job = Job(Path(root), self.options.device, self.options.only_engines)
            if left:
                self._measure(job, left, matrix, started)
        return matrix

    def _stored(self) -> Matrix:
        environment = _environment(self.options.device)
        if not self.path.exists():
            return Matrix(environment)
        stored = Matrix.read(self.path)
        stale = stored.stale()
        kept = {cell: one for cell, one in stored.results.items() if cell not in stale}
        return Matrix(environment, kept)

    def _planned(self, ground: Ground) -> dict[Cell, Result | None]:
        """Return the wanted cells. Those that are unsupported have their results."""
        methods, families, tasks = self.selection.names()
        if self.options.only_engines:
            cells = main_cells(methods, families)
            return {cell: None for cell in cells if cell.task in tasks}
        fits = Fits.loaded(ground, self.options.device, families, tasks)
        return plan(methods, families, tasks, fits)

    def _take_known(self, matrix: Matrix, planned: dict[Cell, Result | None]) -> list[Cell]:
        """Store what the plan knows, and return the cells that must be measured."""
        left = []
        for cell, result in planned.items():
            if result is not None:
                matrix.results[cell] = replace(result, key=key_of(cell))
            elif self.options.fresh or not self._is_known(matrix.results.get(cell)):
                matrix.results.pop(cell, None)
                left.append(cell)
        return left

    def _is_known(self, stored: Result | None) -> bool:
        """Whether a stored result has the checks that are wanted."""
        if stored is None or self.options.only_engines:
            return stored is not None
        checks = {*stored.passed, *stored.failed, *stored.unneeded}
        return bool(stored.reason) or checks != {"engines"}

    def _measure(self, job: Job, cells: list[Cell], matrix: Matrix, started: float) -> None:
        limit = self.options.limit
        ends = None if limit is None else started + limit
        measuring = Measuring(job, min(self.options.workers, len(cells)), ends)
        began, done = time.monotonic(), 0
        try:
            for done, (cell, found) in enumerate(measuring.results(cells), 1):
                result = found.without(str(job.root))
                matrix.results[cell] = replace(result, key=key_of(cell))
                matrix.write(self.path)
                left = (time.monotonic() - began) / done * (len(cells) - done)
                self.report(f"[{done}/{len(cells)}, {left:.0f} s left] {_line(cell, result)}")
        finally:
            measuring.close()
        if done < len(cells):
            self.report(
                f"the time is up: {len(cells) - done} combinations are left for another run"
            )


def _line(cell: Cell, result: Result) -> str:
    problems = "; ".join(f"{check}: {reason}" for check, reason in result.failed.items())
    return f"{cell.name} {result.status} in {result.seconds:.1f} s{problems and f' – {problems}'}"


def _environment(device: str) -> dict[str, Any]:
    """Return what a reader has to know about the machine and its packages."""
    found = describe(device)
    kept = ("device", "device_name", "cuda", "python", "platform", "packages")
    return {name: found[name] for name in kept if found[name] is not None}
