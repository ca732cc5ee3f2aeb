"""Predictions of ended runs, made when nothing is timed any more and added to their records.

A prediction takes seconds of a processor. Made before the runs it would delay them, and beside them
it would disturb what they measure. It depends on the recipe, the method, the engine, the name of
the device and the code alone, so that it is the same after the runs. One serves all seeds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

from peft_methods.runs.events import Event
from peft_methods.runs.executors.cores import own_cores
from peft_methods.runs.executors.process import Worker
from peft_methods.runs.late_questions import LateJob, LateQuestion
from peft_methods.runs.predicted import AFTER, SEVERAL_GPUS, Prediction
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store, StoreError
from peft_methods.utils.errors import first_line
from peft_methods.utils.units import format_duration
from peft_methods.utils.words import counted

ESTIMATED = ("ok", "oom")  # statuses of runs that were measured, or that needed too much
MOST_PROCESSES = 4
METHODS_A_PROCESS = 3  # at least, since each process reads the data first
LIMIT_SECONDS = 300.0  # for one method; after that it has no prediction
INTERVAL = 0.5  # seconds, between two looks at the clock
DIGESTS = ("config_sha256", "weights_sha256", "tokenizer_sha256")
Show = Callable[[int, int, str], None]  # methods that are done, how many there are, the next one


def is_estimated(run: RunSpec) -> bool:
    """Whether there are estimates of such runs: those that are compared, on GPUs.

    Memory on a CPU is that of a whole process, of which an estimate says nothing.
    """
    return run.role == "main" and run.device != "cpu"


class LatePredictions:
    """A watcher that knows the new runs of a session, and estimates them when all have ended.

    Records of earlier sessions and those with an estimate stay as they are. `device_name` is that
    of runs whose record names none. `notes` say what could not be done.
    """

    def __init__(
        self, new_worker: Callable[[], Worker], store: Store, device_name: str = ""
    ) -> None:
        self.notes: list[str] = []
        self._new_worker, self._store, self._device_name = new_worker, store, device_name
        self._runs: dict[str, RunSpec] = {}

    def __call__(self, event: Event) -> None:
        """Remember a run that has ended."""
        record = event.record
        if record is not None and not record.reused and is_estimated(event.run):
            self._runs[event.run.key] = event.run

    def add_to(self, records: Sequence[Record], show: Show = lambda *_: None) -> list[Record]:
        """Estimate the new ones of these records; return them with it, and store them so.

        An interrupt or a failure ends the estimates alone: those that were made are kept.
        """
        groups: dict[tuple[str, ...], list[Record]] = {}
        for one in records:
            if one.key in self._runs and one.predicted is None and one.status in ESTIMATED:
                name = one.recipe_name, one.method_name, one.spec.engine, self._device_of(one)
                groups.setdefault(name, []).append(one)
        found, changed = list(groups.values()), list[Record]()
        questions = [self._question(number, own[0]) for number, own in enumerate(found)]
        ended = 0
        try:
            for number, prediction in self._answers(questions, show):
                ended += 1
                for record in found[number]:
                    changed.append(self._with(record, prediction))
        except KeyboardInterrupt:
            left = counted(len(questions) - ended, "method")
            self.notes.append(f"the estimates of {left} were left out by an interrupt")
        except Exception as error:  # an estimate is additional: the session goes on without it
            left = counted(len(questions) - ended, "method")
            self.notes.append(f"the estimates of {left} failed: {first_line(error)}")
        return changed

    def _device_of(self, record: Record) -> str:
        return str(record.environment.get("device_name") or self._device_name)

    def _question(self, number: int, record: Record) -> LateQuestion:
        """Return the question about a record's run, with the sources as the session named them.

        The engine is that which trained the run: another one may have been asked for.
        """
        run, digests = self._runs[record.key], [record.environment.get(name) for name in DIGESTS]
        known = tuple(str(one) for one in digests if one is not None)
        return LateQuestion(
            number,
            f"{record.recipe_name}-{record.method_name}",
            run.recipe,
            run.method,
            record.spec.engine,
            self._device_of(record),
            known if len(known) == len(DIGESTS) else (),
        )

    def _with(self, record: Record, prediction: Prediction) -> Record:
        """Return a record with its prediction, and store it so."""
        try:
            self._store.amend(record.fingerprint, predicted=prediction)
        except StoreError as error:
            note = f"the estimate of {record.spec.label} is not stored: {first_line(error)}"
            self.notes.append(note)
        return replace(record, predicted=prediction)

    def _answers(
        self, questions: Sequence[LateQuestion], show: Show
    ) -> Iterator[tuple[int, Prediction]]:
        """Yield the numbers of questions with their answers, as they arrive."""
        several = [one for one in questions if one.recipe.budget.gpus > 1]
        yield from _unanswered(several, SEVERAL_GPUS)
        asked, waiting = list[_Asked](), [one for one in questions if one not in several]
        try:
            count = _processes(len(waiting))
            for number in range(count):
                process = self._ask(waiting[number::count], number, count)
                asked.append(process)
            while asked:
                left = [one for process in asked for one in process.left]
                show(len(questions) - len(left), len(questions), left[0].name)
                wait([one for process in asked for one in process.worker.handles()], INTERVAL)
                for process in list(asked):
                    yield from process.answers()
                    if not process.left:
                        asked.remove(process)
                        process.worker.kill()
        finally:
            for process in asked:
                process.worker.kill()

    def _ask(self, questions: Sequence[LateQuestion], number: int, count: int) -> _Asked:
        """Start a process with its share of the questions."""
        log = self._store.folder.absolute() / "logs" / f"estimates-{number}.log"
        worker = self._new_worker()
        with contextlib.suppress(OSError):  # it has died: `answers` reports that
            worker.connection.send(LateJob(questions, log, max(1, len(own_cores()) // count)))
        return _Asked(worker, list(questions), time.monotonic())


@dataclass
class _Asked:
    """A process with the questions that it has not answered, since its last answer."""

    worker: Worker
    left: list[LateQuestion]
    since: float

    def answers(self) -> Iterator[tuple[int, Prediction]]:
        """Yield the answers that have arrived. A process that ended or takes too long has none."""
        try:
            while self.left and (answer := self.worker.receive()) is not None:
                self.left = [one for one in self.left if one.number != answer[0]]
                self.since = time.monotonic()
                yield answer
        except (EOFError, OSError):
            yield from self._give_up(self.worker.cause_of_death())
        if self.left and time.monotonic() - self.since > LIMIT_SECONDS:
            yield from self._give_up(f"it took longer than {format_duration(LIMIT_SECONDS)}")

    def _give_up(self, reason: str) -> Iterator[tuple[int, Prediction]]:
        left, self.left = self.left, []
        return _unanswered(left, reason)


def _unanswered(questions: Sequence[LateQuestion], reason: str) -> Iterator[tuple[int, Prediction]]:
    return ((one.number, Prediction(made=AFTER, reason=reason)) for one in questions)


def _processes(questions: int) -> int:
    """Return how many processes answer so many questions."""
    enough = -(-questions // METHODS_A_PROCESS)
    return min(MOST_PROCESSES, enough, max(1, len(own_cores()) // 2))
