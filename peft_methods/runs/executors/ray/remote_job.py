"""One job on the cluster, as the session sees it: from its placement to its last piece."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peft_methods.runs.executors.base import Ended, Lost, Progress, RunEvent
from peft_methods.runs.executors.jobs import Done, PrepareJob, RunJob, StartSignal
from peft_methods.runs.executors.ray import delivery
from peft_methods.runs.executors.ray.messages import (
    AHEAD,
    PIECE_BYTES,
    FilePiece,
    Files,
    LogPiece,
    MessagePiece,
    Piece,
    Place,
    ProcessEnd,
)
from peft_methods.runs.record import Status
from peft_methods.utils.errors import first_line

STACK_SECONDS = 10.0  # to wait for an answer about stacks
TRIES = 5  # to find a worker that lives until the job begins


class RemoteJob:
    """A job, the worker on a node that does it, and what has arrived from there.

    `waits_for` is what Ray can wait for: first the worker's place, then its pieces. `new_worker`
    returns a worker. If a worker is lost before the job has begun, another one takes it.
    """

    def __init__(
        self,
        ray: Any,
        job: RunJob | PrepareJob,
        rate: float | None,
        inbox: Path,
        new_worker: Callable[[], Any],
    ) -> None:
        self.has_arrived = False  # its result, but perhaps not yet the files
        self.has_ended = False  # it has no more events
        self.worker_is_free = False  # it has removed the files and can take another job
        self._ray, self._job, self._rate = ray, job, rate
        self._new_worker, self._tries, self._asked = new_worker, 0, 0.0
        self.place: Place | None = None  # where it runs
        self._inbox = delivery.Inbox(job, inbox)
        self._message, self._unreadable = b"", ""
        self._done: Done | None = None
        if isinstance(job, PrepareJob) or job.is_first_attempt:
            with contextlib.suppress(OSError):
                job.log.unlink(missing_ok=True)
        self._ask_for_worker()

    def _ask_for_worker(self) -> None:
        self._tries, self._asked = self._tries + 1, time.monotonic()
        self.worker = self._new_worker()
        paths = tuple(delivery.local_paths(self._job).values())
        self.waits_for: Any = self.worker.place.remote(self._job.directory, paths)

    def is_placed(self) -> bool:
        """Whether a worker has answered."""
        return self.place is not None or bool(self._ray.wait([self.waits_for], timeout=0)[0])

    @property
    def waiting_seconds(self) -> float:
        """The time since a worker was asked for."""
        return time.monotonic() - self._asked

    def give_up(self, reason: str) -> Lost:
        """End the job before it has begun."""
        self.has_ended = True
        return Lost(self, "failed", reason, True, "")

    def advance(self) -> Iterator[RunEvent]:
        """Handle what `waits_for` has, and yield the events that it stands for."""
        errors = self._ray.exceptions
        try:
            if self.place is None:
                yield from self._begin(self._ray.get(self.waits_for))
            else:
                yield from self._take(self._ray.get(next(self.waits_for)))
        except errors.RayError as error:
            if self.place is None and self._tries < TRIES:
                self._ask_for_worker()
                return
            self.has_ended = True
            status: Status = "oom" if isinstance(error, errors.OutOfMemoryError) else "crashed"
            yield Lost(self, status, self._how_lost(error), True, "")

    def _begin(self, place: Place) -> Iterator[RunEvent]:
        """Send the job and its files to where its worker is.

        An interrupt may end this early. The job then has no place yet, and begins again if needed.
        """
        if place.missing:
            self.place = place
            self.has_ended = self.worker_is_free = True
            yield Ended(self, delivery.without_its_files(self._job, place))
            return
        for name, path in delivery.files_for(self._job):
            self._send(name, path)
        messages = [pickle.dumps(delivery.on_node(self._job, place))]
        if isinstance(self._job, RunJob):
            messages.append(pickle.dumps(StartSignal(self._rate)))
        run = self.worker.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=AHEAD
        )
        self.waits_for, self.place = run.remote(*messages), place

    def _send(self, name: str, path: Path) -> None:
        ray, sent = self._ray, []
        with path.open("rb") as file:
            while content := file.read(PIECE_BYTES):
                offset = file.tell() - len(content)
                sent.append(self.worker.write.remote(name, offset, content))
                if len(sent) == AHEAD:
                    ray.get(sent)
                    sent.clear()
        ray.get(sent)

    def _take(self, piece: Piece) -> Iterator[RunEvent]:
        if isinstance(piece, LogPiece):
            with contextlib.suppress(OSError):  # a full disk must not fail a run
                self._job.log.parent.mkdir(parents=True, exist_ok=True)
                with self._job.log.open("ab") as file:
                    file.write(piece.content)
        elif isinstance(piece, FilePiece):
            self._inbox.write(piece)
        elif isinstance(piece, Files):
            self._inbox.keep_checkpoints(piece.names)
        elif isinstance(piece, MessagePiece):
            yield from self._read(piece)
        else:
            yield self._end(piece)

    def _read(self, piece: MessagePiece) -> Iterator[RunEvent]:
        self._message += piece.content
        if not piece.last:
            return
        content, self._message = self._message, b""
        try:
            message = pickle.loads(content)
        except Exception as error:  # for example after an interrupt that lost a piece
            self._unreadable = f", and its message cannot be read ({first_line(error)})"
            return
        if isinstance(message, Done):
            self._done, self.has_arrived = message, True
        else:
            yield Progress(self, message)

    def _end(self, end: ProcessEnd) -> RunEvent:
        self.has_ended = True
        if self._done is None:
            assert self.place is not None
            reason = f"{end.reason}, on node {self.place.node}{self._unreadable}"
            return Lost(self, end.status, reason, end.transient, end.stack)
        # A failure that may pass may be this node's: another worker does the next attempt.
        self.worker_is_free = not self._done.may_pass
        return Ended(self, self._inbox.deliver(self._done, end.files))

    def _how_lost(self, error: Exception) -> str:
        if self.place is None:
            return f"no node of the Ray cluster took it: {first_line(error)}"
        what = f"its node {self.place.node} was lost or preempted, or its worker there was killed"
        # Ray's texts on a lost actor are about its own connections.
        is_plain = isinstance(error, self._ray.exceptions.RayActorError)
        return what if is_plain else f"{what}: {first_line(error)}"

    def has_started(self) -> bool:
        """Whether the job's process runs."""
        if self.place is None:
            return False
        return bool(self._ask("has_started", default=False))

    def stacks(self) -> str:
        """Return the stacks of the job's process; '' if it does not answer."""
        return "" if self.place is None else str(self._ask("stacks", default=""))

    def _ask(self, method: str, default: Any) -> Any:
        with contextlib.suppress(self._ray.exceptions.RayError):
            return self._ray.get(getattr(self.worker, method).remote(), timeout=STACK_SECONDS)
        return default

    def forget(self) -> None:
        """Delete what has arrived and was not delivered."""
        self._inbox.remove()
