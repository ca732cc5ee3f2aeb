"""Processes that measure one cell after another. A crash costs the cell that caused it."""

from __future__ import annotations

import gc
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from peft_methods.capabilities.cells import Cell, Result

TIMEOUT = 300  # seconds for a cell. It takes a few
LAST_LINE = 200  # characters of a process's last output that a message has


@dataclass(frozen=True)
class Job:
    """What the processes share: the folder of models and data, and what is measured."""

    root: Path
    device: str
    only_engines: bool = False

    def saved(self, cell: Cell) -> Path:
        """The folder that a cell's trained model is left in."""
        return self.root / "saved" / cell.name.replace("/", "+")


def serve_measuring(connection: Connection, job: Job, log: Path) -> None:
    """Entry point of a process: measure the cells that come through the connection."""
    _set_up(job, log)
    from peft_methods.capabilities.checks import measure
    from peft_methods.capabilities.engines import measure_engines
    from peft_methods.capabilities.toy import Ground

    ground, work = Ground(job.root), log.with_suffix("")
    while (cell := _next(connection)) is not None:
        gc.collect()
        gc.freeze()  # what was imported: trainings collect garbage several times
        if job.only_engines:
            result = measure_engines(cell, ground, work, job.device)
        else:
            result = measure(cell, ground, work, job.saved(cell), job.device)
        shutil.rmtree(work, ignore_errors=True)
        connection.send(result)


def serve_reloading(connection: Connection, job: Job, log: Path) -> None:
    """Entry point of a process: load the saved models of the cells and send what is wrong."""
    _set_up(job, log)
    from peft_methods.capabilities.reload import problem_of
    from peft_methods.capabilities.toy import Ground

    while (cell := _next(connection)) is not None:
        found = problem_of(cell, Ground(job.root), job.saved(cell), job.device)
        shutil.rmtree(job.saved(cell), ignore_errors=True)
        connection.send(found)


def _set_up(job: Job, log: Path) -> None:
    from peft_methods.runs.executors.logs import redirect_output
    from peft_methods.runs.prepare import set_up_process

    redirect_output(log)
    set_up_process(1, device="cpu")
    warnings.simplefilter("ignore")  # of libraries: nobody reads them here


def _next(connection: Connection) -> Cell | None:
    try:
        found: Cell | None = connection.recv()
    except EOFError:  # the parent has ended
        return None
    return found


class Process:
    """One process and the cell that it works on."""

    def __init__(self, target: Any, job: Job, number: str) -> None:
        self._target, self._job = target, job
        self._log = job.root / "logs" / f"{number}.log"
        self.cell: Cell | None = None
        self._deadline = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=self._target, args=(child, self._job, self._log), daemon=True
        )
        self._process.start()
        child.close()

    def give(self, cell: Cell) -> None:
        """Let the process work on a cell."""
        self.cell, self._deadline = cell, time.monotonic() + TIMEOUT
        self.connection.send(cell)

    def take(self) -> tuple[Cell, Any]:
        """Return the finished cell with what was found.

        A process that has died or taken too long is replaced; then it is a line that says so.
        """
        cell, self.cell = self.cell, None
        assert cell is not None, "the process works on a cell"
        try:
            return cell, self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code, last = self._process.exitcode, self._last_line()
            self.restart()
            return cell, f"the process ended with exit code {code}{last}"

    def overdue(self) -> tuple[Cell, str] | None:
        """Replace the process if it has taken too long. Return its cell with a line for it."""
        if self.cell is None or time.monotonic() < self._deadline:
            return None
        cell, self.cell = self.cell, None
        self.restart()
        return cell, f"took longer than {TIMEOUT} s"

    def restart(self) -> None:
        """End the process and start another one."""
        self.end()
        self._start()

    def end(self) -> None:
        """End the process."""
        self.connection.close()
        self._process.kill()
        self._process.join()

    def _last_line(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f": {lines[-1][:LAST_LINE]}" if lines else ""


class Measuring:
    """Some processes that measure, and one that loads what they have saved."""

    def __init__(self, job: Job, workers: int, ends: float | None = None) -> None:
        """`ends`: no cell begins after this time of the monotonic clock."""
        self._ends = ends
        (job.root / "logs").mkdir(parents=True, exist_ok=True)
        self._measuring = [Process(serve_measuring, job, f"worker{i}") for i in range(workers)]
        self._reloading = None
        if not job.only_engines:
            self._reloading = Process(serve_reloading, job, "reload")
        self._waiting: list[tuple[Cell, Result]] = []  # for their saved models to be loaded
        self._loading: Result | None = None

    def results(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Result]]:
        """Yield the result of each cell when it is complete."""
        left = list(reversed(cells))
        while True:
            if self._ends is not None and time.monotonic() > self._ends:
                left.clear()
            for process in self._measuring:
                if process.cell is None and left:
                    process.give(left.pop())
            self._reload_next()
            busy = [one for one in self._all() if one.cell is not None]
            if not busy:
                return
            ready = wait([one.connection for one in busy], timeout=1)
            for process in busy:
                found = process.take() if process.connection in ready else process.overdue()
                if found is not None:
                    yield from self._finished(process, *found)

    def _all(self) -> list[Process]:
        return [*self._measuring, *([self._reloading] if self._reloading else [])]

    def _reload_next(self) -> None:
        if self._reloading and self._reloading.cell is None and self._waiting:
            cell, self._loading = self._waiting.pop(0)
            self._reloading.give(cell)

    def _finished(
        self, process: Process, cell: Cell, found: Result | str
    ) -> Iterator[tuple[Cell, Result]]:
        """Yield the cell if it is complete, else let its saved model be loaded."""
        if process is self._reloading:
            assert self._loading is not None, "what is loaded was measured"
            assert isinstance(found, str), "a line, empty if nothing is wrong"
            yield cell, self._loading.with_reload(found)
        elif isinstance(found, str):
            yield cell, Result(failed={"trains": found})
        else:
            if found.unusable:
                process.restart()
            if found.waits_for_reload and self._reloading:
                self._waiting.append((cell, found))
            else:
                yield cell, found

    def close(self) -> None:
        """End all processes."""
        for process in self._all():
            process.end()
