"""Executor for this machine: each run gets a fresh process.

On a GPU, the next run is loaded on the CPU while the current one trains.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.cells import Cell, Preparation
from peft_methods.errors import DataError, PeftMethodsError, TookTooLong
from peft_methods.execution.events import Event, Watcher
from peft_methods.execution.limits import DEFAULT_RETRIES
from peft_methods.execution.processes import Worker, fork_server
from peft_methods.execution.scratch import RunFolder
from peft_methods.execution.spare import Spare
from peft_methods.execution.waiting import Patience
from peft_methods.execution.worker import CellJob, Done, EngineFailed, Failure, Go, PrepareJob
from peft_methods.methods import TRAINED, Method
from peft_methods.recipe import Recipe
from peft_methods.records import Record, without_result
from peft_methods.store import Store


class LocalExecutor:
    """An executor that runs `workers` runs at a time, prerequisites first.

    Runs start in the order submitted, but a prefetched run goes first. There are no threads: the
    caller that waits drives everything. Each run has `threads` cores to itself. The run's own
    process stores its record as soon as it ends; with `checkpoint`, it also saves each epoch's
    state until then.

    A run, or the check of a recipe, is ended after `timeout` seconds. Time counts only while the
    caller waits and this process is not stopped. Failures that may pass are retried `retries`
    times, after all other runs. `stop` ends all active runs; `close` also removes scratch files.
    """

    def __init__(
        self,
        store: Store,
        device: str,
        *,
        workers: int,
        threads: int,
        save_models: Path | None = None,
        timeout: float | None = None,
        retries: int = DEFAULT_RETRIES,
        checkpoint: bool = False,
    ) -> None:
        self.store, self.device, self.save_models, self.checkpoint = (
            store,
            device,
            save_models,
            checkpoint,
        )
        self.workers, self.threads, self.retries = workers, threads, retries
        self._patience = Patience(timeout)
        self.warnings: list[str] = []
        self._run_folder = RunFolder(store)
        self._server = fork_server()
        self._pending: list[Cell] = []
        self._running: dict[Worker, Cell] = {}
        self._records: dict[str, Record] = {}
        self._attempts: dict[str, tuple[str, ...]] = {}  # how a cell's attempts ended so far
        self._watchers: list[Watcher] = []
        self._spare = Spare(self.new_worker)
        self._loads_ahead = device != "cpu"
        self._matmul_flops_per_second: float | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with every event from now on."""
        self._watchers.append(watcher)

    def prepare(
        self, recipe: Recipe, methods: Sequence[Method], first: Cell | None = None
    ) -> Preparation:
        """Check a recipe's data and model in a separate process. Raises `DataError`.

        `first` is the run that will probably be first. If runs train one at a time on a GPU, it is
        loaded on the CPU meanwhile.
        """
        log = self._log(f"{recipe.name}-prepare")
        job = PrepareJob(recipe, tuple(methods), self.device, self.threads, log, dict(os.environ))
        result = self._ask(job, first)
        for _ in range(self.retries):
            if isinstance(result, Failure) and result.may_pass:
                self._spare.drop()  # it may have been the memory of a cell loaded beside
                result = self._ask(job, None)
        if isinstance(result, Failure):
            raise DataError(
                result.message if result.by_user else f"{result.message} (details: {log})",
                setting=result.setting,
            )
        self._matmul_flops_per_second = (
            self._matmul_flops_per_second or result.matmul_flops_per_second
        )
        return result

    def _ask(self, job: PrepareJob, first: Cell | None) -> Preparation | Failure:
        """Try once to prepare a recipe. Raises `TookTooLong`."""
        worker, _ = self._spare.take()
        self._spare.make()
        if first is not None and self._loads_ahead and self.workers == 1:
            self._spare.give(self._job(first, ""))
        unprepared = f"recipe {job.recipe.name!r} could not be prepared"
        try:
            worker.connection.send(job)
            while (done := worker.receive()) is None:
                self._patience.wait([worker])
                if self._patience.is_over(worker):
                    message, stack = self._patience.said_of(worker)
                    raise TookTooLong(f"{unprepared}: {message}.", stack)
        except (EOFError, OSError):
            return Failure(
                f"{unprepared}: {worker.cause_of_death()}.",
                by_user=False,
                may_pass=worker.was_killed(),
            )
        finally:
            worker.kill()
        return done.result

    def submit(self, cells: Sequence[Cell]) -> None:
        """Queue runs, each after its prerequisites. Runs that are already known are skipped."""
        self._queue(cells)
        self._spare.drop_unless(self._pending)

    def _queue(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._queue(cell.stages)
            known = {other.key for other in (*self._pending, *self._running.values())} | set(
                self._records
            )
            if cell.key not in known:
                self._pending.append(cell)

    def reuse(self, cell: Cell, record: Record) -> bool:
        """Use an earlier session's record for this run; False if its weights cannot be copied.

        The trained weights of a prerequisite go to where the runs that need it expect them.
        """
        if cell.key in self._records:
            return True
        try:
            if (trained := self.store.trained_file(record)) is not None:
                self._work(cell).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(trained, self._work(cell) / TRAINED)
        except OSError as error:
            self.warnings.append(
                f"{cell.label} is trained again: its weights could not be copied ({error.strerror})."
            )
            return False
        self._end(cell, record)
        return True

    def wait(self, cells: Sequence[Cell]) -> list[Record]:
        """Wait until the submitted runs have ended and return their records."""
        while any(cell.key not in self._records for cell in cells):
            self._start_what_can()
            if not self._running:
                break
            self._listen()
        return [self._records[cell.key] for cell in cells if cell.key in self._records]

    def stop(self) -> None:
        """End all active runs and start no more.

        Results that have arrived are recorded first; unfinished runs get no record.
        """
        self._pending.clear()
        for worker, cell in self._running.items():
            with contextlib.suppress(
                EOFError, OSError, pickle.UnpicklingError
            ):  # the last when an interrupt cut a message in two
                while (message := worker.receive()) is not None:
                    if (
                        isinstance(message, Done)
                        and isinstance(message.result, Record)
                        and not message.may_pass
                    ):
                        self._end(cell, message.result)
        for worker in self._running:
            worker.kill()
        self._running.clear()
        self._spare.drop()

    def close(self) -> None:
        """End all processes and remove the session's scratch folder."""
        self.stop()
        self._run_folder.remove()

    def new_worker(self) -> Worker:
        """Create a process that does one job."""
        return Worker(self._server, self._run_folder.path)

    def _start_what_can(self) -> None:
        """Start runs whose prerequisites are done, as long as workers are free.

        A run whose prerequisite failed ends here.
        """
        for cell in sorted(self._pending, key=lambda cell: cell != self._spare.cell):
            stages = [self._records.get(stage.key) for stage in cell.stages]
            failed = next((record for record in stages if record and record.status != "ok"), None)
            if failed is not None:
                self._pending.remove(cell)
                record = without_result(
                    cell, "failed", f"its source {failed.recipe_name} failed: {failed.message}"
                )
                self.store_here(record)
                self._end(cell, record)
            elif len(self._running) < self.workers and None not in stages:
                self._pending.remove(cell)
                self._start(cell)

    def _start(self, cell: Cell, engine_failed: str = "") -> None:
        worker, has_job = self._spare.take(None if engine_failed else cell)
        self._running[worker] = cell
        self._tell(Event(cell))
        with contextlib.suppress(OSError):  # a process that died early shows when it is listened to
            if not has_job:
                worker.connection.send(self._job(cell, engine_failed))
            worker.connection.send(Go(self._matmul_flops_per_second))
        self._prepare_next()

    def _prepare_next(self) -> None:
        """Create the next process while the current runs train.

        On a GPU it receives its job at once and does everything that needs no GPU.
        """
        if self._pending:
            self._spare.make()
        ready = (
            cell for cell in self._pending if all(self._is_done(stage) for stage in cell.stages)
        )
        if self._loads_ahead and (cell := next(ready, None)) is not None:
            self._spare.give(self._job(cell, ""))

    def _is_done(self, stage: Cell) -> bool:
        record = self._records.get(stage.key)
        return record is not None and record.status == "ok"

    def _job(self, cell: Cell, engine_failed: str) -> CellJob:
        """Build the job for a run's process, with the trainer engine after `engine_failed`."""
        seconds = [
            self._records[stage.key].metrics.get("train_seconds") or 0.0 for stage in cell.stages
        ]
        return CellJob(
            cell=cell.fallen_back() if engine_failed else cell,
            work=self._work(cell),
            stages=tuple(self._work(stage) for stage in cell.stages),
            source_seconds=sum(seconds) if seconds else None,
            save_to=None
            if self.save_models is None or cell.is_source
            else self.save_models / cell.label,
            threads=self.threads,
            store=self.store.folder,
            log=self._log(cell.label),
            environment=dict(os.environ),
            engine_note=engine_failed,
            stage_identities=tuple(self._records[stage.key].identity for stage in cell.stages),
            attempts=self._attempts.get(cell.key, ()),
            checkpoint=self.checkpoint,
        )

    def _work(self, cell: Cell) -> Path:
        return self._run_folder.path / cell.key

    def _log(self, name: str) -> Path:
        return self._run_folder.logs / f"{name}.log"

    def _listen(self) -> None:
        """Handle messages, unexpected ends and timeouts of the active runs."""
        ready = self._patience.wait(self._running)
        for worker, cell in list(self._running.items()):
            if not ready.isdisjoint(worker.handles()):
                self._take_in(worker, cell)
            if worker in self._running and self._patience.is_over(worker):
                message, stack = self._patience.said_of(worker)
                self._fail(
                    worker,
                    cell,
                    without_result(cell, "timeout", message, stack=stack),
                    said=self._output_of(cell),
                )

    def _take_in(self, worker: Worker, cell: Cell) -> None:
        try:
            message = worker.receive()
        except (EOFError, OSError):
            status, why = worker.fate()
            record = without_result(cell, status, why, stack=worker.last_stacks())
            self._fail(
                worker, cell, record, may_pass=worker.was_killed(), said=self._output_of(cell)
            )
            return
        if isinstance(message, Done):
            self._finish(worker, cell, message)
        elif message is not None:
            worker.news = message
            self._tell(Event(cell, news=message))

    def _finish(self, worker: Worker, cell: Cell, done: Done) -> None:
        if isinstance(done.result, EngineFailed):
            self._let_go(worker)
            self._start(cell, done.result.reason)
            return
        assert isinstance(done.result, Record)
        if done.may_pass:
            self._fail(worker, cell, done.result, may_pass=True)
            return
        self._let_go(worker)
        if done.not_stored:
            self.warnings.append(done.not_stored)
        if cell.trial or not cell.is_source:
            shutil.rmtree(self._work(cell), ignore_errors=True)
        self._end(cell, done.result)

    def _fail(
        self, worker: Worker, cell: Cell, record: Record, *, may_pass: bool = False, said: str = ""
    ) -> None:
        """End a run whose process stored no record, or queue it again.

        `said` is appended to the last attempt's message.
        """
        self._let_go(worker)
        shutil.rmtree(self._work(cell), ignore_errors=True)
        before = self._attempts.get(cell.key, ())
        if may_pass and len(before) < self.retries:
            self._attempts[cell.key] = (*before, f"{record.status}: {record.message}")
            self._pending.append(cell)
            self._tell(Event(cell, failed=self._attempts[cell.key][-1]))
            return
        record = replace(record, message=record.message + said, attempts=before)
        self.store_here(record)
        self._end(cell, record)

    def _output_of(self, cell: Cell) -> str:
        return f"; its output is in {self._log(cell.label)}"

    def _let_go(self, worker: Worker) -> None:
        worker.kill()
        del self._running[worker]

    def store_here(self, record: Record) -> None:
        """Write a record that no run's process wrote.

        If that fails, the record stays in memory and `warnings` gets a line.
        """
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
