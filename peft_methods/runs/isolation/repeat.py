"""One run of a session, done in a warm process, is repeated in a fresh one and compared."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from peft_methods.runs.executors.base import Ended, Executor, Handle, Lost, RunEvent
from peft_methods.runs.executors.jobs import RunJob
from peft_methods.runs.isolation.comparison import differences
from peft_methods.runs.isolation.marks import REPEATED, was_warm, with_repeat
from peft_methods.runs.limits import FRESH
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.store import PREDICTIONS, Store, StoreError
from peft_methods.runs.timeouts import Timeouts
from peft_methods.utils.hashing import content_hash


def chosen(records: Iterable[Record]) -> Record | None:
    """Choose the run to repeat among those that were done in warm processes.

    All runs of the session decide which, so that nobody can foresee it. It is one of the shorter
    half, since the session waits for it.
    """
    known = list(records)
    warm = [one for one in known if one.status == "ok" and one.role == "main" and was_warm(one)]
    if not warm:
        return None
    warm.sort(key=lambda one: (one.metrics.get("train_seconds") or 0.0, one.fingerprint))
    shorter = warm[: (len(warm) + 1) // 2]
    number = int(content_hash(sorted(one.fingerprint for one in known)), 16)
    return shorter[number % len(shorter)]


class RepeatedRun:
    """The repeat of one run: it starts where an executor has nothing else to do."""

    def __init__(self, executor: Executor, requests: RunRequests, timeouts: Timeouts) -> None:
        self._executor, self._requests, self._timeouts = executor, requests, timeouts
        self._folder = requests.folder.path / REPEATED
        self._handle: Handle | None = None
        self._first: Record | None = None  # in a warm process
        self._outcome: dict[str, Any] | None = None
        self._seen, self._has_warm = 0, False

    @property
    def is_running(self) -> bool:
        """Whether the run is being repeated."""
        return self._handle is not None

    def start(self, records: Mapping[str, Record], rate: float | None) -> None:
        """Begin, unless it was begun before, or there is no such run, or no room for it.

        `records` are those of this session by key, `rate` as in `Executor.start`.
        """
        if self._first is not None or not self._any_warm(records):
            return
        first = chosen(one for one in records.values() if not one.reused)
        if first is None or not self._executor.has_room(self._requests.needs_of(first.spec)):
            return
        job = self._job(first, records)
        self._first = first
        with contextlib.suppress(StoreError):
            Store(job.store).prepare()
        self._handle = self._executor.start(job, rate)
        self._timeouts.begin(self._handle)

    def _any_warm(self, records: Mapping[str, Record]) -> bool:
        """Whether a run of this session was done in a warm process. Each record is looked at once.

        A session asks at every event of its end, of which large ones have thousands.
        """
        new = itertools.islice(records.values(), self._seen, None)
        self._has_warm = self._has_warm or any(was_warm(one) and not one.reused for one in new)
        self._seen = len(records)
        return self._has_warm

    def _job(self, first: Record, records: Mapping[str, Record]) -> RunJob:
        job = self._requests.run_job(first.spec, records)
        return replace(
            job,
            work=self._folder / "work",
            store=self._folder / "store",
            log=self._requests.log(f"{first.spec.label}-{REPEATED}"),
            save_to=None,
            checkpoint=False,
            isolation=FRESH,
        )

    def is_other(self, handle: Handle) -> bool:
        """Whether a job whose time is over is another one. The repeat ends otherwise."""
        if self._handle is None or handle != self._handle:
            return True
        self._end(failure="it took too long")
        return False

    def takes(self, event: RunEvent) -> bool:
        """Whether an event is one of the repeat. If it has ended, the results are compared."""
        if self._handle is None or event.handle != self._handle:
            return False
        if isinstance(event, Lost):
            self._end(failure=event.reason)
        elif isinstance(event, Ended):
            result = event.done.result
            if isinstance(result, Record) and result.status == "ok":
                self._end(self._differences(result))
            else:
                self._end(failure=getattr(result, "message", "") or getattr(result, "reason", ""))
        return True

    def _differences(self, fresh: Record) -> list[str]:
        assert self._first is not None
        name = f"{self._first.fingerprint}{PREDICTIONS}"
        files = self._requests.store.folder / name, self._folder / "store" / name
        return differences(self._first, fresh, *files)

    def _end(self, found: Sequence[str] = (), failure: str = "") -> None:
        assert self._first is not None
        self._outcome = {"run": self._first.spec.label, "differences": list(found)}
        if failure:
            self._outcome["failure"] = failure
        self.stop()

    def stop(self) -> None:
        """End the repeat."""
        if self._handle is not None:
            self._executor.kill(self._handle)
            self._timeouts.end(self._handle)
            self._handle = None

    def marked(self, records: Mapping[str, Record]) -> list[Record]:
        """Return the records that the outcome concerns, with it, and write them so.

        It is the repeated run alone where both results are the same, else all warm runs. Where
        nothing was repeated there are none.
        """
        if self._outcome is None or self._first is None:
            return []
        warm = [one for one in records.values() if was_warm(one) and not one.reused]
        concerned = warm if self._outcome["differences"] else [self._first]
        marked = [with_repeat(one, self._outcome) for one in concerned]
        for one in marked:
            with contextlib.suppress(StoreError):
                self._requests.store.amend(one.fingerprint, environment=one.environment)
        return marked
