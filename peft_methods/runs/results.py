"""Results of an experiment: its records as they arrive, its predictions, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_methods.runs.plan import RunGroup
from peft_methods.runs.record import Record
from peft_methods.runs.store import Store, StoreError
from peft_methods.tasks.base import Predictions

Result = tuple[Record, Predictions | None]
RunKey = tuple[str, str, int, bool]  # recipe, method, seed, is it a prerequisite


@dataclass(frozen=True)
class Results:
    """Records with the notes of their session, and predictions by the records' fingerprints."""

    records: tuple[Record, ...]
    notes: tuple[str, ...]
    predictions: Mapping[str, Predictions]


class ArrivedRecords:
    """The records of an experiment so far."""

    def __init__(self, tasks: Sequence[RunGroup]) -> None:
        self._tasks = tuple(tasks)
        self._records: dict[RunKey, Record] = {}

    def expect(self, tasks: Sequence[RunGroup]) -> None:
        """Replace the tasks, which now have more runs."""
        self._tasks = tuple(tasks)

    def keep(self, records: Iterable[Record]) -> None:
        """Add records. A record of the same run is replaced."""
        for record in records:
            key = record.recipe_name, record.method_name, record.seed, record.role != "main"
            self._records[key] = record

    def have_all(self, task: RunGroup) -> bool:
        """Whether all runs of a task have a record."""
        return all(key in self._records for key in _keys(task))

    def of(self, task: RunGroup) -> list[Record]:
        """Return the records of a task's runs, in the order of its seeds."""
        return [self._records[key] for key in _keys(task) if key in self._records]

    def of_prerequisites(self, task: RunGroup) -> list[Record]:
        """Return the records of the runs that a task's runs depend on."""
        keys = [
            (one.recipe.name, one.method.name, one.seed, True) for one in task.runs[0].prerequisites
        ]
        return [self._records[key] for key in keys if key in self._records]

    def all(self) -> list[Record]:
        """Return all records in the order of the tasks, prerequisites last."""
        records = [record for task in self._tasks for record in self.of(task)]
        return [*records, *(record for record in self._records.values() if record.role != "main")]

    def missing_note(self, folder: Path) -> list[str]:
        """Return one line that names the runs without a record, if there are any.

        `folder` is where finished runs are kept.
        """
        missing: dict[str, int] = {}
        for task in self._tasks:
            seeds = [str(key[2]) for key in _keys(task) if key not in self._records]
            if seeds:
                plural = "s" * (len(seeds) > 1)
                missing[f"{task.method.title} seed{plural} {', '.join(seeds)}"] = len(seeds)
        if not missing:
            return []
        number = sum(len(task.runs) for task in self._tasks)
        return [
            f"Not trained, since the session was ended early: {'; '.join(missing)} "
            f"({sum(missing.values())} of {number} runs). The same command continues from here: "
            f"finished runs are kept in {folder}."
        ]


def _keys(task: RunGroup) -> list[RunKey]:
    return [(task.recipe.name, task.method.name, run.seed, False) for run in task.runs]


def read_predictions(
    store: Store, records: Iterable[Record]
) -> tuple[dict[str, Predictions], list[str]]:
    """Return predictions of finished runs by fingerprint, and a line for each unreadable file."""
    predictions: dict[str, Predictions] = {}
    unreadable = []
    for record in records:
        try:
            found = store.read_predictions(record) if record.status == "ok" else None
        except StoreError as error:
            unreadable.append(f"{error} {record.method_name} seed {record.seed} is in no group.")
        else:
            predictions |= {} if found is None else {record.fingerprint: found}
    return predictions, unreadable
