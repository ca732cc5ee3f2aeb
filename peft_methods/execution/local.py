"""Runs cells on this machine: a fresh process for each, the next one's imports done while the present ones train."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from peft_methods.cells import Cell, Preparation
from peft_methods.environment import find_device
from peft_methods.errors import DataError, PeftMethodsError
from peft_methods.execution.worker import GO, CellJob, Done, EngineFailed, Failure, PrepareJob, serve
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
        with hidden_main():
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
def hidden_main() -> Iterator[None]:
    """Children must not run the user's script or notebook again, so they are not told which one it is."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def process_context() -> Any:
    """Where there is no GPU a server process imports everything once and forks; beside one that would poison CUDA."""
    if find_device() == "cpu" and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["peft_methods.execution.preload"])
        return context
    return multiprocessing.get_context("spawn")


class LocalExecutor:
    """`workers` cells at a time, in the order submitted, stages before what needs them. Whoever waits, drives: no threads.

    Each cell has `threads` cores to itself, so cells side by side do not share one. Records are stored by the cell's
    own process the moment it ends. `close` ends whatever still runs.
    """

    def __init__(self, store: Store, device: str, *, workers: int, threads: int, save_models: Path | None = None) -> None:
        self.store, self.device, self.save_models = store, device, save_models
        self.workers, self.threads = workers, threads
        self.warnings: list[str] = []
        self._run_folder = Path(tempfile.mkdtemp(prefix="run-", dir=store.folder))
        self._context = process_context()
        self._pending: list[Cell] = []
        self._running: dict[_Worker, Cell] = {}
        self._records: dict[str, Record] = {}
        self._watchers: list[Watcher] = []
        self._spare: _Worker | None = None
        self._prepared: Cell | None = None  # the cell whose job the spare has already
        self._matmul_flops_per_second: float | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call this with every event from now on."""
        self._watchers.append(watcher)

    def prepare(self, recipe: Recipe, methods: Sequence[Method]) -> Preparation:
        """Check a recipe's data and model in a process of its own. Raises `DataError` with the one line that says it."""
        worker, log = self._take_spare(), self._log(f"{recipe.name}-prepare")
        self._spare = _Worker(self._context)
        try:
            worker.connection.send(PrepareJob(recipe, tuple(methods), self.device, self.threads, log, dict(os.environ)))
            result = worker.connection.recv().result
        except (EOFError, OSError):
            raise DataError(f"recipe {recipe.name!r} could not be prepared: {worker.cause_of_death()}.") from None
        finally:
            worker.kill()
        if isinstance(result, Failure):
            raise DataError(result.message if result.by_user else f"{result.message} (details: {log})")
        self._matmul_flops_per_second = self._matmul_flops_per_second or result.matmul_flops_per_second
        return result

    def submit(self, cells: Sequence[Cell]) -> None:
        """Queue cells, each behind the stages it needs; a cell known already is not run again."""
        for cell in cells:
            self.submit(cell.stages)
            known = {other.key for other in (*self._pending, *self._running.values())} | set(self._records)
            if cell.key not in known:
                self._pending.append(cell)

    def wait(self, cells: Sequence[Cell]) -> list[Record]:
        """The records of submitted cells, when all have ended."""
        while any(cell.key not in self._records for cell in cells):
            self._start_what_can()
            if not self._running:
                break
            self._listen()
        return [self._records[cell.key] for cell in cells if cell.key in self._records]

    def close(self) -> None:
        """End all processes of this executor and remove the run's scratch folder."""
        for worker in filter(None, (*self._running, self._spare)):
            worker.kill()
        self._running.clear()
        self._spare = None
        shutil.rmtree(self._run_folder, ignore_errors=True)

    def _take_spare(self) -> _Worker:
        worker, self._spare, self._prepared = self._spare or _Worker(self._context), None, None
        return worker

    def _start_what_can(self) -> None:
        """Give free workers the first cells whose stages are done; a cell whose stage failed ends here."""
        for cell in sorted(self._pending, key=lambda cell: cell is not self._prepared):
            stages = [self._records.get(stage.key) for stage in cell.stages]
            failed = next((record for record in stages if record and record.status != "ok"), None)
            if failed is not None:
                self._pending.remove(cell)
                record = without_result(cell, "failed", f"its source {failed.recipe_name} failed: {failed.message}")
                self.store_here(record)
                self._end(cell, record)
            elif len(self._running) < self.workers and None not in stages:
                self._pending.remove(cell)
                self._start(cell)

    def _start(self, cell: Cell, engine_failed: str = "") -> None:
        is_prepared = cell is self._prepared and not engine_failed
        worker = self._take_spare() if is_prepared or self._prepared is None else _Worker(self._context)
        self._running[worker] = cell
        self._tell(Event(cell))
        with contextlib.suppress(OSError):  # a process that died early shows when it is listened to
            if not is_prepared:
                worker.connection.send(self._job(cell, engine_failed))
            worker.connection.send(GO)
        self._prepare_next()

    def _prepare_next(self) -> None:
        """Start the next process while the present ones train. On a GPU it gets its job already: all that needs no GPU is done."""
        if self._pending and self._spare is None:
            self._spare = _Worker(self._context)
        if self._spare is None or self._prepared is not None or self.device == "cpu":
            return
        ready = (cell for cell in self._pending if all(self._is_done(stage) for stage in cell.stages))
        self._prepared = next(ready, None)
        if self._prepared is not None:
            with contextlib.suppress(OSError):
                self._spare.connection.send(self._job(self._prepared, ""))

    def _is_done(self, stage: Cell) -> bool:
        record = self._records.get(stage.key)
        return record is not None and record.status == "ok"

    def _job(self, cell: Cell, engine_failed: str) -> CellJob:
        """What the cell's process needs to know; where its engine failed before, the stock engine takes its place."""
        seconds = [self._records[stage.key].metrics.get("train_seconds") or 0.0 for stage in cell.stages]
        return CellJob(
            cell=replace(cell, engine="stock") if engine_failed else cell,
            work=self._work(cell),
            stages=tuple(self._work(stage) for stage in cell.stages),
            source_seconds=sum(seconds) if seconds else None,
            save_to=None if self.save_models is None or cell.is_source else self.save_models / cell.label,
            threads=self.threads,
            store=self.store.folder,
            log=self._log(cell.label),
            environment=dict(os.environ),
            matmul_flops_per_second=self._matmul_flops_per_second,
            engine_note=engine_failed,
        )

    def _work(self, cell: Cell) -> Path:
        return self._run_folder / cell.key

    def _log(self, name: str) -> Path:
        return self.store.folder / "logs" / f"{name}.log"

    def _listen(self) -> None:
        """Take in what the running cells have to say; a silent end is a record too."""
        ready = set(wait([handle for worker in self._running for handle in worker.handles()]))
        for worker, cell in list(self._running.items()):
            if ready.isdisjoint(worker.handles()):
                continue
            message = self._message(worker, cell)
            if isinstance(message, Done):
                self._finish(worker, cell, message)
            else:
                self._tell(Event(cell, news=message))

    def _message(self, worker: _Worker, cell: Cell) -> Done | dict[str, Any]:
        try:
            if not worker.connection.poll():
                raise EOFError
            message: Done | dict[str, Any] = worker.connection.recv()
        except (EOFError, OSError):
            log = self._log(cell.label)
            record = without_result(cell, "crashed", f"{worker.cause_of_death()}; its output is in {log}")
            self.store_here(record)
            return Done(record)
        return message

    def _finish(self, worker: _Worker, cell: Cell, done: Done) -> None:
        worker.kill()
        del self._running[worker]
        if isinstance(done.result, EngineFailed):
            self._start(cell, done.result.reason)
            return
        assert isinstance(done.result, Record)
        if done.not_stored:
            self.warnings.append(done.not_stored)
        if cell.trial or not cell.is_source:
            shutil.rmtree(self._work(cell), ignore_errors=True)
        self._end(cell, done.result)

    def store_here(self, record: Record) -> None:
        """Write a record that no cell's process wrote; where that fails it stays in memory and a warning is kept."""
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
