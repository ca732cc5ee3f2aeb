"""What cells yield, logged to experiment trackers: a process a run and tracker, fed by the executor's events."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft_methods.cells import Cell
from peft_methods.errors import OptionError, first_line, unknown
from peft_methods.execution.events import Event
from peft_methods.execution.processes import Worker
from peft_methods.execution.tracker import End, Entry, Run
from peft_methods.records import Record

EXTRAS = (
    "tensorboard",
    "wandb",
    "trackio",
    "mlflow",
)  # the trackers that our extras bring; the Trainer has more
MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # where a tracker's module has another name
WITHOUT_MODULE = ("kubeflow",)
FINISH_SECONDS = 60.0  # how long all that are open may take to end when the last cell has
CLOSE_SECONDS = 5.0  # and when the job is broken off
FLUSH_SECONDS = 0.05  # between two tries to send what was not taken
MOST_ENDING = 16  # processes that may still be writing
LATE = "it was not done in time"
SCORES = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall")


def checked(names: Iterable[str], option: str) -> tuple[str, ...]:
    """Trackers that the installed Trainer has a callback for and whose package is there. Raises `OptionError`."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in EXTRAS and name not in (allowed := _of_the_trainer()):
            raise OptionError(f"{option}: {unknown('tracker', name, allowed)}")
        module = MODULES.get(name, name)
        if name not in WITHOUT_MODULE and importlib.util.find_spec(module) is None:
            package = (
                f'"peft-methods[{name}]"'
                if name in EXTRAS
                else f"{module}, or what its documentation says"
            )
            raise OptionError(
                f"{option}: tracker {name!r} needs a package that is not installed: pip install {package}"
            )
    return names


def _of_the_trainer() -> list[str]:
    """All that have a callback; importing it takes seconds, so only names without an extra of ours are looked up."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


class _Open:
    """A run that is being logged."""

    def __init__(self, run: Run, worker: Worker) -> None:
        self.run, self.step, self._worker = run, 0, worker
        self._unsent: deque[Run | Entry | End] = deque()
        self.send(run)

    def send(self, message: Run | Entry | End) -> None:
        """Never waits: what the process cannot take yet (it is still importing, or hangs) is kept for later."""
        if isinstance(message, Entry):
            self.step = message.step
        self._unsent.append(message)
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):  # it has died, which `failure` tells
            while self._unsent and select.select([], [self._worker.connection], [], 0)[1]:
                self._worker.connection.send(self._unsent.popleft())

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it has, within so many seconds."""
        until = time.monotonic() + seconds
        while True:
            self._flush()
            left = max(0.0, until - time.monotonic())
            ended = self._worker.has_ended(min(left, FLUSH_SECONDS) if self._unsent else left)
            if ended or time.monotonic() >= until:
                return ended

    def failure(self) -> str:
        """Why a run that has ended is not complete, or nothing."""
        with contextlib.suppress(OSError, EOFError):
            if self._worker.connection.poll():
                return str(self._worker.connection.recv())
        return "" if self._worker.ended_well() else self._worker.cause_of_death()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._worker.kill()


class Tracking:
    """Watches an executor. A tracker that fails costs its log alone: what is missing is said in `warnings`."""

    def __init__(
        self, trackers: Sequence[str], results: Path, new_worker: Callable[[], Worker]
    ) -> None:
        self.trackers, self._results, self._new_worker = (
            tuple(trackers),
            results.absolute(),
            new_worker,
        )
        self._started = time.strftime("%Y-%m-%dT%H-%M-%S")
        self._cells: dict[str, list[_Open]] = {}
        self._attempts: Counter[str] = Counter()
        self._ending: list[_Open] = []
        self._lost: dict[tuple[str, str], list[Run]] = {}

    def __call__(self, event: Event) -> None:
        """A run a cell, and one more where it starts again: an entry an epoch, the metrics at the end."""
        if not self.trackers:
            return
        key = event.cell.key
        if event.record is not None:
            runs = self._cells.pop(key, None)
            for run in runs or self._open_cell(event.cell):
                for epoch in (
                    () if runs else event.record.epochs
                ):  # a cell that did not run here: all at once
                    run.send(_of_epoch(epoch))
                run.send(_final(event.record, run.step))
                self._end(run, ok=event.record.status == "ok")
        elif event.failed:
            for run in self._cells.pop(key, []):
                self._end(run, ok=False)  # the cell is tried again
        elif event.news is None:
            for run in self._cells.pop(key, []):
                self._end(run, ok=False)  # with another engine
            self._cells[key] = self._open_cell(event.cell)
        elif "train_loss" in event.news:
            for run in self._cells.get(key, []):
                run.send(_of_epoch(event.news))

    def log_table(self, recipe: str, rows: Sequence[dict[str, Any]], text: str) -> None:
        """One more run: every method's figures, as scalars and as a table."""
        values = {
            f"test_{row['method']}/{name}": value
            for row in rows
            for name, value in row.items()
            if isinstance(value, (int, float))
        }
        for run in self._open(f"{recipe}-comparison", recipe, {"recipe": recipe}):
            run.send(Entry(values | {"test_comparison": text}, table=tuple(rows)))
            self._end(run, ok=True)

    def finish(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait for what is still being written, but not for ever."""
        until = time.monotonic() + seconds
        for run in self._ending:
            ended = run.has_ended(max(0.0, until - time.monotonic()))
            self._note(run.run, run.failure() if ended else LATE)
            run.kill()
        self._ending.clear()

    def close(self) -> None:
        """End all that is open: nothing is left when the job is broken off, neither a process nor a run without an end."""
        for run in itertools.chain.from_iterable(self._cells.values()):
            self._end(run, ok=False)
        self._cells.clear()
        self.finish(CLOSE_SECONDS)

    def warnings(self) -> list[str]:
        """What is not logged and why, a line a reason."""
        return [
            f"{tracker} has no complete log of {runs[0].name}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}: "
            f"{reason}; its output is in {runs[0].log}"
            for (tracker, reason), runs in self._lost.items()
        ]

    def _open_cell(self, cell: Cell) -> list[_Open]:
        """Under the cell's name; where it is tried again under one more, since a tracker would draw both as one curve."""
        self._attempts[cell.key] += 1
        attempt = self._attempts[cell.key]
        return self._open(
            cell.label + (f"-attempt{attempt}" if attempt > 1 else ""), _group(cell), cell.spec()
        )

    def _open(self, name: str, group: str, config: Mapping[str, Any]) -> list[_Open]:
        self._reap()
        flat = {"group": group, **_flat(config)}
        log, tracking = self._results / "logs" / name, self._results / "tracking"
        runs = [
            Run(
                one,
                name,
                group,
                flat,
                tracking / one,
                self._started,
                Path(f"{log}.{one}.log"),
                dict(os.environ),
            )
            for one in self.trackers
        ]
        return [opened for run in runs if (opened := self._started_for(run)) is not None]

    def _started_for(self, run: Run) -> _Open | None:
        try:
            return _Open(run, self._new_worker())
        except OSError as error:  # no more processes, or no memory for one
            self._note(run, first_line(error))
            return None

    def _end(self, run: _Open, *, ok: bool) -> None:
        run.send(End(ok))
        self._ending.append(run)

    def _reap(self) -> None:
        """Let go of processes that are done, and of the oldest where a tracker gets none done and they would pile up."""
        ended = [run for run in self._ending if run.has_ended()]
        late = [run for run in self._ending if run not in ended][:-MOST_ENDING]
        for run in (*ended, *late):
            self._ending.remove(run)
            self._note(run.run, LATE if run in late else run.failure())
            run.kill()

    def _note(self, run: Run, reason: str) -> None:
        if reason:
            self._lost.setdefault((run.tracker, reason), []).append(replace(run, environment={}))


def _group(cell: Cell) -> str:
    return f"{cell.recipe.name}-{cell.method.name}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'method': {'rank': 8}} -> {'method.rank': 8}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return flat


def _of_epoch(news: Mapping[str, Any]) -> Entry:
    """An epoch's figures as the Trainer would name them."""
    values = {
        "loss": news["train_loss"],
        "eval_loss": news["validation_loss"],
        "accuracy": news.get("train_accuracy"),
        "eval_accuracy": news["validation_accuracy"],
        "eval_selection": news["selection"],
        **{
            name: news.get(name)
            for name in ("learning_rate", "samples_per_second", "peak_memory_bytes")
        },
    }
    return Entry(_told(values), int(news.get("step", news["epoch"])), float(news["epoch"]))


def _final(record: Record, step: int) -> Entry:
    """A record's metrics and how the cell ended, at its last step."""
    metrics = {
        f"test_{name}" if name in SCORES else name: value for name, value in record.metrics.items()
    }
    said = {"status": record.status, "message": record.message or None}
    return Entry(_told(metrics | said), step, float(len(record.epochs)))


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
