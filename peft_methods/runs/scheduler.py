"""The scheduler: which run starts when, which is retried, and which needs no training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.detached import Detached
from peft_methods.runs.events import Event, Watcher
from peft_methods.runs.executors.base import Detachable, Ended, Executor, Handle, Lost, Progress
from peft_methods.runs.executors.jobs import Done, EngineFailed, RunJob
from peft_methods.runs.failures import StoreOfFailures
from peft_methods.runs.gpu_failures import GpuFailures
from peft_methods.runs.isolation.repeat import RepeatedRun
from peft_methods.runs.limits import DEFAULT_RETRIES
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.recipe_checks import RecipeChecks
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.run_queue import RunQueue
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.timeouts import Timeouts


class Scheduler:
    """Run what was submitted, in that order, each run after its prerequisites.

    Runs that need more come first (`RunQueue`), and one that is being prefetched as soon as its
    device is free. A run, or the check of a recipe, is ended after `timeout` seconds.
    A transient failure is retried `retries` times, after everything else. Whoever waits drives.
    """

    def __init__(
        self,
        executor: Executor,
        requests: RunRequests,
        *,
        timeout: float | None = None,
        retries: int = DEFAULT_RETRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor, self.requests, self.retries = executor, requests, retries
        self.warnings: list[str] = []
        self._timeouts = Timeouts(timeout, clock)
        self._checks = RecipeChecks(executor, requests, self._timeouts, retries)
        self._failures = GpuFailures(executor)
        self._repeat = RepeatedRun(executor, requests, self._timeouts)
        self._store = StoreOfFailures(requests.store.folder)
        self._queue = RunQueue(requests.needs_of, executor.capacity.gpus)
        self._running: dict[Handle, RunSpec] = {}
        self._queued: set[Handle] = set()  # those of them that wait for a machine
        self._news: dict[Handle, dict[str, object]] = {}
        self._known: set[str] = set()  # keys of the runs that were submitted, or have a record
        self._records: dict[str, Record] = {}
        self._attempts: dict[str, tuple[str, ...]] = {}  # how a run's attempts ended so far
        self._watchers: list[Watcher] = []
        self._matmul_rate: float | None = None  # FLOPs per second

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with every event from now on."""
        self._watchers.append(watcher)

    def prepare(
        self, recipe: Recipe, methods: Sequence[Method], first: Sequence[RunSpec] = (), **more: Any
    ) -> PreparedRecipe:
        """Check a recipe in a worker, and prefetch `first`: see `RecipeChecks`."""
        result = self._checks.prepare(recipe, methods, [self._job(run) for run in first], **more)
        self._matmul_rate = self._matmul_rate or result.matmul_flops_per_second
        return result

    def submit(self, runs: Sequence[RunSpec]) -> None:
        """Queue runs, each after its prerequisites. A known run is not queued again."""
        self._add(runs)
        if not self._queue or not all(map(self._queue.has_job, self.executor.prefetched())):
            self.executor.drop_prefetched(keep=self._queue.job_names())

    def _add(self, runs: Sequence[RunSpec]) -> None:
        for run in runs:
            self._add(run.prerequisites)
            if run.key not in self._known:
                self._known.add(run.key)
                self._queue.add(run, self._records)

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
        for run in runs:
            while run.key not in self._records and self._advance():
                pass
        self._start_ready()  # the caller may do other work before it waits for more
        return [self._records[run.key] for run in runs if run.key in self._records]

    def verify(self) -> list[Record]:
        """Wait until a run was repeated in a fresh process. Return the records that it concerns."""
        self._start_ready()
        while self._repeat.is_running:
            self._listen()
        return self._repeat.marked(self._records)

    def _advance(self) -> bool:
        """Start what can start, and process what happens next. False if nothing runs."""
        self._start_ready()
        if not self._running:
            return False
        self._listen()
        return True

    def detach(self) -> Detached:
        """Start what can start, and leave it to the executor when the session ends."""
        assert isinstance(self.executor, Detachable)
        self._start_ready()
        return Detached(self.executor.detach(), len(self._queue))

    def stop(self) -> None:
        """Start nothing more, keep results that have arrived, and end runs without a record."""
        self._queue.clear()
        self._repeat.stop()
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
        self._known = set(self._records)
        self.executor.drop_prefetched()

    def close(self) -> None:
        """Stop, end every process and remove scratch files."""
        self.stop()
        self.executor.close()
        self.requests.remove_scratch()

    def _start_ready(self) -> None:
        """Start runs while resources last. A run whose prerequisite failed ends here."""
        for run, reason in self._queue.hopeless(self._failures.reason_to_end):
            self._give_up(run, record_without_result(run, "failed", reason))
        before = len(self._running)
        for ready in iter(self._next, None):
            self._start(ready)
        if len(self._running) > before and self._queue:
            self.executor.prefetch(self._following())
        if not self._queue:
            self._repeat.start(self._records, self._matmul_rate)

    def _following(self) -> list[RunJob]:
        """Return the next jobs to prefetch: at least one, unless nothing can be prefetched."""
        if not (limit := self.executor.prefetch_limit):
            return []
        known = self.executor.prefetched()
        runs = self._queue.following(max(1, limit - len(known)), without=known)
        return [self._job(run) for run in runs]

    def _next(self) -> RunSpec | None:
        """Take the run to start now: prefetched ones of free devices first, of others last."""
        needs = self._queue.next_needs(self.executor.has_room)
        if needs is None:
            return None
        first, last = self.executor.next_prefetched(), self.executor.prefetched()
        return self._queue.take(needs, first, last)

    def _start(self, run: RunSpec, engine_failed: str = "") -> None:
        job = self._job(run, engine_failed)
        handle = self.executor.start(job, self._matmul_rate)
        self._running[handle] = run
        if self.executor.is_queued(handle):
            self._queued.add(handle)
            self._notify(Event(run, waits=True))
        else:
            self._begin(handle, run)

    def _begin(self, handle: Handle, run: RunSpec) -> None:
        """Count a job's time: a machine has taken it."""
        self._queued.discard(handle)
        self._timeouts.begin(handle)
        self._notify(Event(run))

    def _job(self, run: RunSpec, engine_failed: str = "") -> RunJob:
        tries = self._attempts.get(run.key, ())
        return self.requests.run_job(run, self._records, tries, engine_failed)

    def _listen(self) -> None:
        """Process what the running jobs report. A timeout is a record too."""
        for event in self._timeouts.poll(self.executor):
            if self._repeat.takes(event):
                continue
            run = self._running[event.handle]
            if event.handle in self._queued:
                self._begin(event.handle, run)
            if isinstance(event, Progress):
                self._news[event.handle] = event.news
                self._notify(Event(run, news=event.news))
            elif self._failures.leave_out(run.key, event.handle, event.gpu_failure):
                self._try_elsewhere(event.handle, run, event.gpu_failure)
            elif isinstance(event, Ended):
                self._finish(event.handle, run, event.done)
            else:
                self._fail(event.handle, run, event)
        for handle in filter(self._repeat.is_other, self._timeouts.expired()):
            run = self._running[handle]
            known = self._news.get(handle)
            message, stacks = self._timeouts.describe(self.executor, handle, known)
            self._fail(handle, run, Lost(handle, "timeout", message, False, stacks))

    def _finish(self, handle: Handle, run: RunSpec, done: Done) -> None:
        if isinstance(done.result, EngineFailed):
            self._release(handle)
            self._start(run, done.result.reason)
            return
        assert isinstance(done.result, Record)
        if done.may_pass:
            self._fail(handle, run, done.result)
            return
        self._release(handle)
        self.warnings += filter(None, [done.not_stored])
        if run.role != "prerequisite":
            self.requests.remove_work(run)
        self._end(run, done.result)

    def _fail(self, handle: Handle, run: RunSpec, end: Record | Lost) -> None:
        """End a run whose process stored no record, or queue it once more.

        A record is of a failure that may pass. Without one, the message of the last attempt names
        the log.
        """
        self._release(handle)
        self.requests.remove_work(run)
        before = self._attempts.get(run.key, ())
        message = end.reason if isinstance(end, Lost) else end.message
        may_pass = end.transient if isinstance(end, Lost) else True
        if may_pass and len(before) < self.retries:
            self._attempts[run.key] = (*before, f"{end.status}: {message}")
            self._queue.add(run, self._records)
            self._notify(Event(run, failed=self._attempts[run.key][-1]))
        elif isinstance(end, Lost):
            message += f"; its output is in {self.requests.log(run.label)}"
            record = record_without_result(run, end.status, message, stack=end.stack)
            self._give_up(run, replace(record, attempts=before))
        else:
            self._give_up(run, replace(end, attempts=before))

    def _try_elsewhere(self, handle: Handle, run: RunSpec, failure: str) -> None:
        """Queue a run whose GPU failed, as the next one. It is no attempt of the run."""
        self._release(handle)
        self.requests.remove_work(run)
        self._queue.add(run, self._records, first=True)
        left = self.executor.capacity.gpus
        self._notify(Event(run, failed=f"its GPU failed ({failure})", workers=left))

    def _release(self, handle: Handle) -> None:
        self.executor.kill(handle)
        self._timeouts.end(handle)
        self._running.pop(handle, None)
        self._queued.discard(handle)
        self._news.pop(handle, None)

    def _give_up(self, run: RunSpec, record: Record) -> None:
        self.store_here(record)
        self._end(run, record)

    def store_here(self, record: Record) -> None:
        """Write a record that no worker wrote. If that fails, keep it in memory and warn."""
        self.warnings += self._store.write_or_warn(record)

    def _end(self, run: RunSpec, record: Record) -> None:
        self._records[run.key] = record
        self._known.add(run.key)
        self._queue.end(run.key, record)
        self._notify(Event(run, record=record))

    def _notify(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher(event)
