"""Runs that earlier sessions finished: which of them an experiment reuses, and which come first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from peft_methods.runs import kept_checks
from peft_methods.runs.kept_checks import Keys
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record
from peft_methods.runs.record_reader import RecordReader, keys_of
from peft_methods.runs.reuse import ReusableRuns
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store


def with_prerequisites(runs: Iterable[RunSpec]) -> Iterable[RunSpec]:
    """Return each run after its prerequisites."""
    return chain.from_iterable((*run.prerequisites, run) for run in runs)


class EarlierRuns:
    """Finished runs in the store. With `fresh` none is reused."""

    def __init__(self, store: Store, save_models: Path | None, *, fresh: bool) -> None:
        self.fresh, self._store = fresh, store
        self._reusable = ReusableRuns(store, save_models)

    @property
    def warnings(self) -> list[str]:
        """Lines about damaged runs that cannot be reused."""
        return self._reusable.warnings

    def probably_first(
        self, runs: Iterable[RunSpec], records: Iterable[Record], count: int
    ) -> list[RunSpec]:
        """Return the first `count` runs without prerequisites that have no record: a guess.

        `records` are the finished ones.
        """
        every = list(with_prerequisites(runs))
        known = set() if self.fresh else keys_of(records, every)
        free = (run for run in every if not run.prerequisites and run.key not in known)
        return list(islice(free, count))

    def reuse(self, run: RunSpec, preparation: PreparedRecipe, scheduler: Scheduler) -> bool:
        """Whether the scheduler now has the run's record. Its prerequisites are reused anyway."""
        if self.fresh:
            return False
        found = {}
        for one in with_prerequisites([run]):
            record = self._reusable.record_of(one, preparation)
            found[one.key] = record is not None and scheduler.reuse(one, record)
        return found[run.key]

    def preparation(
        self, keys: Keys | None, tasks: Sequence[RunGroup], *, even_if_incomplete: bool
    ) -> PreparedRecipe | None:
        """Return the kept check of one recipe, if every run of these tasks is reused with it.

        `even_if_incomplete`: return it also if some are not reused.
        """
        is_useless = self.fresh and not even_if_incomplete
        kept = None if keys is None or is_useless else kept_checks.find(keys)
        if kept is None or even_if_incomplete:
            return kept
        runs = [
            run for task in tasks for run in task.runs if task.method.name not in kept.unsupported
        ]
        found = self.keys(runs, {task.recipe.name: kept for task in tasks})
        return kept if found.issuperset(run.key for run in with_prerequisites(runs)) else None

    def with_recorded_weights(
        self, preparation: PreparedRecipe, tasks: Sequence[RunGroup]
    ) -> PreparedRecipe:
        """Add the digests of weights from the newest records of these tasks' methods.

        They show what would be reused if the weights are still the same. Everything else that a
        run depends on is compared.
        """
        facts = preparation.facts
        if facts is None:
            return preparation
        runs = with_prerequisites(run for task in tasks for run in task.runs)
        wanted = {(run.recipe.name, run.method.name) for run in runs}
        records, _ = RecordReader().records(self._store.folder)
        known: dict[str, str] = {
            record.spec.method.info.quantization or "": record.environment["weights_sha256"]
            for record in sorted(records, key=lambda record: record.finished)
            if (record.recipe_name, record.method_name) in wanted
            if record.environment.get("config_sha256") == facts.config
            and "weights_sha256" in record.environment
        }
        return replace(preparation, facts=replace(facts, weights=known))

    def remove_checkpoints(self, runs: Iterable[RunSpec]) -> None:
        """Delete the checkpoints of these runs and their prerequisites if nothing is reused."""
        if self.fresh:
            for run in with_prerequisites(runs):
                self._store.remove_checkpoints(run.key)

    def keys(self, runs: Iterable[RunSpec], preparations: Mapping[str, PreparedRecipe]) -> set[str]:
        """Return the keys of the runs and prerequisites that would be reused."""
        if self.fresh:
            return set()
        return {
            one.key
            for run in runs
            if (preparation := preparations.get(run.recipe.name)) is not None
            for one in with_prerequisites([run])
            if self._reusable.record_of(one, preparation) is not None
        }
