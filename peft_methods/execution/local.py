"""Runs cells on this machine: a fresh process for each, the next one's imports done while the present one trains."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from peft_methods.cells import Cell, Preparation
from peft_methods.errors import DataError, PeftMethodsError
from peft_methods.execution.worker import CellJob, Done, Failure, PrepareJob, serve
from peft_methods.methods import Method
from peft_methods.recipe import Recipe
from peft_methods.records import Record, Store, without_result

KILL_GRACE_SECONDS = 5
Watcher = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """Something to show: a cell started, came further (`news`), or ended with a record."""

    cell: Cell
    news: dict[str, Any] | None = None
    record: Record | None = None


class _Worker:
    """A process that has done its imports, or is doing them, and takes one job."""

    def __init__(self, context: Any) -> None:
        self.connection, child = context.Pipe()
        self.process = context.Process(target=serve, args=(child,), daemon=True)
        with _hidden_main():
            self.process.start()
        child.close()

    def handles(self) -> list[Any]:
        """What to wait on: news, or the process's end."""
        return [self.connection, self.process.sentinel]

    def kill(self) -> None:
        """End the process and free what it held here."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join(KILL_GRACE_SECONDS)
        self.connection.close()

    def cause_of_death(self) -> str:
        """How the process ended, in words."""
        self.process.join(KILL_GRACE_SECONDS)
        code = self.process.exitcode
        if code is not None and code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"its process was killed by {signal.Signals(-code).name}{hint}"
        return f"its process ended with exit code {code}"


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Children must not run the user's script or notebook again, so they are not told which one it is."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _context(device: str) -> Any:
    """Without a GPU a server process imports everything once and forks; with one that would poison CUDA."""
    if device == "cpu" and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["peft_methods.execution.worker", "peft_methods.runner", "bitsandbytes", "peft"])
        return context
    return multiprocessing.get_context("spawn")


class LocalExecutor:
    """One cell at a time, in the order submitted; stages before what needs them. Not thread-safe: whoever waits, drives.

    Records are stored by the cell's own process the moment it ends. `close` ends whatever still runs.
    """

    def __init__(self, store: Store, device: str, *, save_models: Path | None = None) -> None:
        self.store, self.device, self.save_models = store, device, save_models
        self.warnings: list[str] = []
        self._run_folder = Path(tempfile.mkdtemp(prefix="run-", dir=store.folder))
        self._context = _context(device)
        self._pending: list[Cell] = []
        self._records: dict[str, Record] = {}
        self._watchers: list[Watcher] = []
        self._busy: tuple[_Worker, Cell] | None = None
        self._spare: _Worker | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call this with every event from now on."""
        self._watchers.append(watcher)

    def prepare(self, recipe: Recipe, methods: Sequence[Method]) -> Preparation:
        """Check a recipe's data and model in a process of its own. Raises `DataError` with the one line that says it."""
        worker = self._take_spare(more_to_come=True)
        worker.connection.send(PrepareJob(recipe, tuple(methods), self.device, self._log(f"{recipe.name}-prepare")))
        try:
            result = worker.connection.recv().result
        except EOFError:
            raise DataError(f"recipe {recipe.name!r} could not be prepared: {worker.cause_of_death()}.") from None
        finally:
            worker.kill()
        if isinstance(result, Failure):
            log = "" if result.by_user else f" (details: {self._log(f'{recipe.name}-prepare')})"
            raise DataError(result.message + log)
        return result

    def submit(self, cells: Sequence[Cell]) -> None:
        """Queue cells, each behind the stages it needs; a cell known already is not run again."""
        for cell in cells:
            self.submit(cell.stages)
            known = {pending.key for pending in self._pending} | set(self._records)
            if cell.key not in known and not (self._busy and self._busy[1].key == cell.key):
                self._pending.append(cell)

    def cancel_pending(self) -> None:
        """Start nothing more."""
        self._pending.clear()

    def wait(self, cells: Sequence[Cell]) -> list[Record]:
        """The records of submitted cells, when all have ended."""
        while any(cell.key not in self._records for cell in cells):
            self._start_next()
            if self._busy is None:
                break
            self._listen()
        return [self._records[cell.key] for cell in cells if cell.key in self._records]

    def close(self) -> None:
        """End all processes of this executor and remove the run's scratch folder."""
        for worker in filter(None, (self._busy and self._busy[0], self._spare)):
            worker.kill()
        self._busy = self._spare = None
        shutil.rmtree(self._run_folder, ignore_errors=True)

    def _take_spare(self, *, more_to_come: bool) -> _Worker:
        worker = self._spare or _Worker(self._context)
        self._spare = _Worker(self._context) if more_to_come else None
        return worker

    def _start_next(self) -> None:
        while self._busy is None and self._pending:
            cell = self._pending.pop(0)
            failed = [stage for stage in cell.stages if self._records[stage.key].status != "ok"]
            if failed:
                message = f"its source {failed[0].recipe.name} failed: {self._records[failed[0].key].message}"
                self._end(cell, without_result(cell, "failed", message))
                continue
            self._busy = (self._take_spare(more_to_come=bool(self._pending)), cell)
            self._tell(Event(cell))
            with contextlib.suppress(OSError):  # a process that died early shows when it is listened to
                self._busy[0].connection.send(self._job(cell))

    def _job(self, cell: Cell) -> CellJob:
        seconds = [self._records[stage.key].metrics.get("train_seconds") or 0.0 for stage in cell.stages]
        return CellJob(
            cell=cell,
            work=self._work(cell),
            stages=tuple(self._work(stage) for stage in cell.stages),
            source_seconds=sum(seconds) if seconds else None,
            save_to=None if self.save_models is None or cell.is_source else self.save_models / cell.label,
            store=self.store.folder,
            log=self._log(cell.label),
        )

    def _work(self, cell: Cell) -> Path:
        return self._run_folder / cell.key

    def _log(self, name: str) -> Path:
        return self.store.folder / "logs" / f"{name}.log"

    def _listen(self) -> None:
        """Take in what the running cell has to say; its silent end is a record too."""
        assert self._busy is not None
        worker, cell = self._busy
        ready = wait(worker.handles())
        try:
            if worker.connection not in ready and not worker.connection.poll():
                raise EOFError
            message = worker.connection.recv()
        except (EOFError, OSError):
            log = self._log(cell.label)
            message = Done(without_result(cell, "crashed", f"{worker.cause_of_death()}; its output is in {log}"))
            self._store_here(message.result)
        if isinstance(message, Done):
            self._finish(worker, cell, message)
        else:
            self._tell(Event(cell, news=message))

    def _finish(self, worker: _Worker, cell: Cell, done: Done) -> None:
        assert isinstance(done.result, Record)
        if done.not_stored:
            self.warnings.append(done.not_stored)
        worker.kill()
        self._busy = None
        if not cell.is_source:
            shutil.rmtree(self._work(cell), ignore_errors=True)
        self._end(cell, done.result)

    def _store_here(self, record: Any) -> None:
        try:
            self.store.write(record)
        except PeftMethodsError as error:
            self.warnings.append(str(error))

    def _end(self, cell: Cell, record: Record) -> None:
        self._records[cell.key] = record
        self._tell(Event(cell, record=record))

    def _tell(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher(event)
