"""Logging of runs to experiment trackers: one process per run and tracker, fed by events."""

from __future__ import annotations

import importlib.util
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft_methods.runs.events import Event
from peft_methods.runs.executors.process import Worker
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.tracking.entries import epoch_entry, final_entry, flattened
from peft_methods.runs.tracking.logged_run import LoggedRun
from peft_methods.runs.tracking.tracker_process import End, Entry, Run
from peft_methods.utils.errors import OptionError, first_line, unknown

# Trackers that this project has extras for. The Trainer supports more.
EXTRAS = ("tensorboard", "wandb", "trackio", "mlflow")
MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # modules named unlike their tracker
WITHOUT_MODULE = ("kubeflow",)
FINISH_SECONDS = 60.0  # how long all trackers may take to finish after the last run
CLOSE_SECONDS = 5.0  # and after an interrupt
MAX_FINISHING = 16  # processes that may still be writing
LATE = "it did not finish in time"


def parse_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """Validate tracker names: the Trainer has a callback and the package is installed.

    Raises `OptionError`.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in EXTRAS and name not in (allowed := _trainer_trackers()):
            raise OptionError(unknown("tracker", name, allowed), setting="track")
        module = MODULES.get(name, name)
        if name not in WITHOUT_MODULE and importlib.util.find_spec(module) is None:
            package = (
                f'"peft-methods[{name}]"'
                if name in EXTRAS
                else f"{module}, or as its documentation says"
            )
            raise OptionError(
                f"tracker {name!r} needs a package that is not installed: pip install {package}"
            )
    return names


def _trainer_trackers() -> list[str]:
    """Return all trackers with a callback.

    Importing the callbacks takes seconds, so this is used only for names outside `EXTRAS`.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


class Tracking:
    """A watcher that logs runs to trackers.

    If a tracker fails, only its log is lost; `warnings` lists what is missing.
    """

    def __init__(
        self, trackers: Sequence[str], results: Path, new_worker: Callable[[], Worker]
    ) -> None:
        self.trackers, self._results, self._new_worker = (
            tuple(trackers),
            results.absolute(),
            new_worker,
        )
        self._started = time.strftime("%Y-%m-%dT%H-%M-%S")
        self._active: dict[str, list[LoggedRun]] = {}
        self._attempts: Counter[str] = Counter()
        self._ending: list[LoggedRun] = []
        self._lost: dict[tuple[str, str], list[Run]] = {}

    def __call__(self, event: Event) -> None:
        """Handle an event: one logged run per attempt, an entry per epoch, metrics at the end."""
        if not self.trackers or event.waits:
            return
        key = event.run.key
        if event.record is not None:
            runs = self._active.pop(key, None)
            for run in runs or self._open_run(event.run):
                # A run that was not trained in this session is logged all at once.
                for epoch in () if runs else event.record.epochs:
                    run.send(epoch_entry(epoch))
                run.send(final_entry(event.record, run.step))
                self._end(run, ok=event.record.status == "ok")
        elif event.failed:
            for run in self._active.pop(key, []):
                self._end(run, ok=False)  # the run is retried
        elif event.news is None:
            for run in self._active.pop(key, []):
                self._end(run, ok=False)  # restarted with another engine
            self._active[key] = self._open_run(event.run)
        elif "train_loss" in event.news:
            for run in self._active.get(key, []):
                run.send(epoch_entry(event.news))

    def log_table(self, recipe: str, rows: Sequence[dict[str, Any]], text: str) -> None:
        """Log a comparison: every method's metrics, as scalars and as a table."""
        values = {
            f"test_{row['method']}/{name}": value
            for row in rows
            for name, value in row.items()
            if isinstance(value, (int, float))
        }
        for run in self._open_all(f"{recipe}-comparison", recipe, {"recipe": recipe}):
            run.send(Entry(values | {"test_comparison": text}, table=tuple(rows)))
            self._end(run, ok=True)

    def finish(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait up to `seconds` until all logs are written."""
        until = time.monotonic() + seconds
        for run in self._ending:
            ended = run.has_ended(max(0.0, until - time.monotonic()))
            self._note(run.run, run.failure() if ended else LATE)
            run.kill()
        self._ending.clear()

    def close(self) -> None:
        """End all open logs, so that an interrupt leaves no process and no unfinished log."""
        for run in itertools.chain.from_iterable(self._active.values()):
            self._end(run, ok=False)
        self._active.clear()
        self.finish(CLOSE_SECONDS)

    def warnings(self) -> list[str]:
        """List the incomplete logs, one line per reason."""
        return [
            f"{tracker} has no complete log of {runs[0].name}{_and_more(runs)}: "
            f"{reason}; its output is in {runs[0].log}"
            for (tracker, reason), runs in self._lost.items()
        ]

    def _open_run(self, run: RunSpec) -> list[LoggedRun]:
        """Start logging a run under its name.

        A retry gets a new name, because trackers would draw both attempts as one curve.
        """
        self._attempts[run.key] += 1
        attempt = self._attempts[run.key]
        return self._open_all(
            run.label + (f"-attempt{attempt}" if attempt > 1 else ""), _group(run), run.to_json()
        )

    def _open_all(self, name: str, group: str, config: Mapping[str, Any]) -> list[LoggedRun]:
        self._reap()
        flat = {"group": group, **flattened(config)}
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
        return [opened for run in runs if (opened := self._open_one(run)) is not None]

    def _open_one(self, run: Run) -> LoggedRun | None:
        try:
            return LoggedRun(run, self._new_worker())
        except OSError as error:  # no more processes, or no memory for one
            self._note(run, first_line(error))
            return None

    def _end(self, run: LoggedRun, *, ok: bool) -> None:
        run.send(End(ok))
        self._ending.append(run)

    def _reap(self) -> None:
        """Release processes that have finished, and the oldest if too many are unfinished."""
        ended = [run for run in self._ending if run.has_ended()]
        late = [run for run in self._ending if run not in ended][:-MAX_FINISHING]
        for run in (*ended, *late):
            self._ending.remove(run)
            self._note(run.run, LATE if run in late else run.failure())
            run.kill()

    def _note(self, run: Run, reason: str) -> None:
        if reason:
            self._lost.setdefault((run.tracker, reason), []).append(replace(run, environment={}))


def _and_more(runs: Sequence[Run]) -> str:
    return f" and {len(runs) - 1} more" if len(runs) > 1 else ""


def _group(run: RunSpec) -> str:
    return f"{run.recipe.name}-{run.method.name}"
