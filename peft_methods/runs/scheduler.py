"""The scheduler: which run starts when, which is retried, and which needs no training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.events import Event, Watcher
from peft_methods.runs.executors.base import Ended, Executor, Handle, Progress
from peft_methods.runs.executors.jobs import Done, EngineFailed, RunJob, job_name
from peft_methods.runs.limits import DEFAULT_RETRIES
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.recipe_checks import RecipeChecks
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.timeouts import Timeouts
from peft_methods.utils.errors import PeftMethodsError


class Scheduler:
    """Run what was submitted, in that order, each run after its prerequisites.

    A run that is being prefetched goes first, once its device is free. A run, or the check of a
    recipe, that takes more than `timeout` seconds is ended. A transient failure is retried
    `retries` times, after everything else. There are no threads: whoever waits drives.
    """

    def __init__(
        self,
        executor: Executor,
        requests: RunRequests,
        *,
        timeout: float | None = None,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self.executor, self.requests, self.retries = executor, requests, retries
        self.warnings: list[str] = []
        self._timeouts = Timeouts(timeout)
        self._checks = RecipeChecks(executor, requests, self._timeouts, retries)
        self._store = requests.store
        self._pending: list[RunSpec] = []
        self._running: dict[Handle, RunSpec] = {}
        self._news: dict[Handle, dict[str, object]] = {}
        self._records: dict[str, Record] = {}
        self._attempts: dict[str, tuple[str, ...]] = {}  # how a run's attempts ended so far
        self._watchers: list[Watcher] = []
        self._matmul_flops_per_second: float | None = None

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with every event from now on."""
        self._watchers.append(watcher)

    def prepare(
        self, recipe: Recipe, methods: Sequence[Method], first: RunSpec | None = None
    ) -> PreparedRecipe:
        """Check a recipe's data and model in a worker. Raises `DataError`.

        `first` is the run that will probably be the first; it is prefetched meanwhile.
        """
        result = self._checks.prepare(recipe, methods, None if first is None else self._job(first))
        self._matmul_flops_per_second = (
            self._matmul_flops_per_second or result.matmul_flops_per_second
        )
        return result

    def submit(self, runs: Sequence[RunSpec]) -> None:
        """Queue runs, each after its prerequisites. A known run is not queued again."""
        self._queue(runs)
        self.executor.drop_prefetched(keep=frozenset(map(job_name, self._pending)))

    def _queue(self, runs: Sequence[RunSpec]) -> None:
        for run in runs:
            self._queue(run.prerequisites)
            known = {other.key for other in (*self._pending, *self._running.values())}
            if run.key not in known | set(self._records):
                self._pending.append(run)

    def reuse(self, run: RunSpec, record: Record) -> bool:
        """Use an earlier session's record for this run.

        The trained weights of a prerequisite are copied to where the run that needs them looks.
        Returns False, with a warning, if that fails.
        """
        if run.key in self._records:
            return True
        try:
            self.requests.restore_trained(run, record)
        except OSError as error:
            self.warnings.append(
                f"{run.label} is trained again: its weights could not be copied ({error.strerror})."
            )
            return False
        self._end(run, record)
        return True

    def wait(self, runs: Sequence[RunSpec]) -> list[Record]:
        """Return the records of submitted runs, when all have ended."""
        while any(run.key not in self._records for run in runs):
            self._start_ready()
            if not self._running:
                break
            self._listen()
        return [self._records[run.key] for run in runs if run.key in self._records]

    def stop(self) -> None:
        """Start nothing more, keep results that have arrived, and end what is running.

        A run that was ended has no record.
        """
        self._pending.clear()
        while events := list(self.executor.poll(0)):
            for event in events:
                run = self._running.get(event.handle)
                if isinstance(event, Progress) or run is None:
                    continue
                self._release(event.handle)
                done = event.done if isinstance(event, Ended) else None
                if done and isinstance(done.result, Record) and not done.may_pass:
                    self._end(run, done.result)
        for handle in list(self._running):
            self._release(handle)
        self.executor.drop_prefetched()

    def close(self) -> None:
        """Stop, end every process and remove scratch files."""
        self.stop()
        self.executor.close()
        self.requests.remove_scratch()

    def _ready(self) -> list[RunSpec]:
        """Return the queued runs whose prerequisites have all succeeded."""
        ended_well = {key for key, record in self._records.items() if record.status == "ok"}
        return [
            run for run in self._pending if ended_well.issuperset(s.key for s in run.prerequisites)
        ]

    def _start_ready(self) -> None:
        """Start runs while resources last. A run that can never start ends here."""
        self._fail_those_that_cannot_start()
        started = False
        while (run := self._next()) is not None:
            self._pending.remove(run)
            self._start(run)
            started = True
        if started and self._pending:
            following = self._ready()[: max(1, self.executor.prefetch_limit)]
            self.executor.prefetch([self._job(run) for run in following])

    def _next(self) -> RunSpec | None:
        """Return the run to start now: one that is prefetched on a free device, if there is one.

        One that is prefetched on a device that is in use comes last. Nothing overtakes a run that
        waits for several devices.
        """
        first, last = self.executor.next_prefetched(), self.executor.prefetched()
        return min(
            itertools.takewhile(
                lambda run: self.executor.has_room(self.requests.needs_of(run)), self._ready()
            ),
            key=lambda run: (job_name(run) not in first, job_name(run) in last),
            default=None,
        )

    def _fail_those_that_cannot_start(self) -> None:
        for run in list(self._pending):
            if reason := self._obstacle(run):
                self._pending.remove(run)
                record = record_without_result(run, "failed", reason)
                self.store_here(record)
                self._end(run, record)

    def _obstacle(self, run: RunSpec) -> str:
        """Return why a run can never start: a failed prerequisite, or too few GPUs; or ''."""
        ended = (self._records.get(stage.key) for stage in run.prerequisites)
        failed = next((one for one in ended if one is not None and one.status != "ok"), None)
        if failed is not None:
            return f"its prerequisite run {failed.recipe_name} failed: {failed.message}"
        wanted, there = self.requests.needs_of(run).gpus, self.executor.capacity.gpus
        if wanted > there:
            return f"it needs {wanted} GPUs, and this session uses {there}: set workers = {wanted}"
        return ""

    def _start(self, run: RunSpec, engine_failed: str = "") -> None:
        job = self._job(run, engine_failed)
        handle = self.executor.start(job, self._matmul_flops_per_second)
        self._running[handle] = run
        self._notify(Event(run))

    def _job(self, run: RunSpec, engine_failed: str = "") -> RunJob:
        attempts = self._attempts.get(run.key, ())
        return self.requests.run_job(run, self._records, attempts, engine_failed)

    def _listen(self) -> None:
        """Process what the running jobs report. A timeout is a record too."""
        for event in self._timeouts.poll(self.executor, self._running):
            run = self._running[event.handle]
            if isinstance(event, Progress):
                self._news[event.handle] = event.news
                self._notify(Event(run, news=event.news))
            elif isinstance(event, Ended):
                self._finish(event.handle, run, event.done)
            else:
                record = record_without_result(run, event.status, event.reason, stack=event.stack)
                self._fail(event.handle, run, record, transient=event.transient, has_log=True)
        for handle, run in list(self._running.items()):
            if self._timeouts.is_over(handle):
                started = self.executor.has_started(handle)
                stacks = self.executor.stacks(handle)
                message = self._timeouts.message(stacks, self._news.get(handle), started=started)
                record = record_without_result(run, "timeout", message, stack=stacks)
                self._fail(handle, run, record, has_log=True)

    def _finish(self, handle: Handle, run: RunSpec, done: Done) -> None:
        if isinstance(done.result, EngineFailed):
            self._release(handle)
            self._start(run, done.result.reason)
            return
        assert isinstance(done.result, Record)
        if done.may_pass:
            self._fail(handle, run, done.result, transient=True)
            return
        self._release(handle)
        if done.not_stored:
            self.warnings.append(done.not_stored)
        if run.role != "prerequisite":
            self.requests.remove_work(run)
        self._end(run, done.result)

    def _fail(
        self,
        handle: Handle,
        run: RunSpec,
        record: Record,
        *,
        transient: bool = False,
        has_log: bool = False,
    ) -> None:
        """End a run whose process stored no record, or queue it once more.

        With `has_log`, the message of the last attempt names the log.
        """
        self._release(handle)
        self.requests.remove_work(run)
        before = self._attempts.get(run.key, ())
        if transient and len(before) < self.retries:
            self._attempts[run.key] = (*before, f"{record.status}: {record.message}")
            self._pending.append(run)
            self._notify(Event(run, failed=self._attempts[run.key][-1]))
            return
        log = f"; its output is in {self.requests.log(run.label)}" if has_log else ""
        record = replace(record, message=record.message + log, attempts=before)
        self.store_here(record)
        self._end(run, record)

    def _release(self, handle: Handle) -> None:
        self.executor.kill(handle)
        self._running.pop(handle, None)
        self._news.pop(handle, None)

    def store_here(self, record: Record) -> None:
        """Write a record that no worker wrote. If that fails, keep it in memory and warn."""
        try:
            self._store.write(record)
        except PeftMethodsError as error:
            self.warnings.append(str(error))

    def _end(self, run: RunSpec, record: Record) -> None:
        self._records[run.key] = record
        self._notify(Event(run, record=record))

    def _notify(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher(event)
