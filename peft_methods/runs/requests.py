"""Build the jobs of workers: a run with its folders and its prerequisites' results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_methods.methods.base import TRAINED, Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import PrepareJob, RunJob
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.limits import FRESH
from peft_methods.runs.prepared import NO_ENGINES
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store


@dataclass(frozen=True)
class RunRequests:
    """Build jobs. `save_models` is where trained models are kept; `checkpoint` saves every epoch.
    `isolation` says whether runs may share a process. `without_weights`: recipes are checked for a
    dry run, from the model's config.

    `needs` are the resources of a run on one GPU, or on none. The executor adds the devices and the
    environment.
    """

    store: Store
    folder: RunFolder
    device: str
    needs: Resources
    save_models: Path | None = None
    checkpoint: bool = False
    isolation: str = FRESH
    without_weights: bool = False

    def prepare_job(
        self, recipe: Recipe, methods: Sequence[Method], engines: Mapping[str, str] = NO_ENGINES
    ) -> PrepareJob:
        """Return the job that checks a recipe, and predicts runs by these engines, if any."""
        log = self.log(f"{recipe.name}-prepare")
        return PrepareJob(
            recipe,
            tuple(methods),
            self.device,
            log,
            self.needs,
            without_weights=self.without_weights,
            engines=dict(engines),
        )

    def run_job(
        self,
        run: RunSpec,
        records: Mapping[str, Record],
        attempts: tuple[str, ...] = (),
        engine_failed: str = "",
    ) -> RunJob:
        """Return a run's job. If its engine failed, the fallback engine takes its place.

        `records` are those of ended runs by key; `attempts` say how earlier attempts ended.
        """
        ended = [records[one.key] for one in run.prerequisites if one.key in records]
        seconds = [record.metrics.get("train_seconds") or 0.0 for record in ended]
        keeps_model = self.save_models is not None and run.role == "main"
        return RunJob(
            run=run.with_fallback_engine() if engine_failed else run,
            work=self.work(run),
            prerequisites=tuple(self.work(one) for one in run.prerequisites),
            prerequisite_seconds=sum(seconds) if seconds else None,
            save_to=self.save_models / run.label if self.save_models and keeps_model else None,
            store=self.store.folder,
            log=self.log(run.label),
            needs=self.needs_of(run),
            engine_note=engine_failed,
            prerequisite_fingerprints=tuple(record.fingerprint for record in ended),
            attempts=attempts,
            checkpoint=self.checkpoint,
            isolation=self.isolation,
        )

    def needs_of(self, run: RunSpec) -> Resources:
        """Return what a run needs. The processes of a run on a CPU share its threads."""
        return Resources(run.recipe.budget.gpus if self.needs.gpus else 0, self.needs.threads)

    def work(self, run: RunSpec) -> Path:
        """Return a run's scratch folder."""
        return self.folder.path / run.key

    def log(self, name: str) -> Path:
        """Return the log file of a job."""
        return self.folder.logs / f"{name}.log"

    def restore_trained(self, run: RunSpec, record: Record) -> None:
        """Copy the trained weights kept with a record to the run's scratch folder, if any."""
        if (trained := self.store.trained_file(record)) is not None:
            self.work(run).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(trained, self.work(run) / TRAINED)

    def remove_work(self, run: RunSpec) -> None:
        """Delete a run's scratch folder, if it is on this machine."""
        if os.path.exists(work := os.path.join(self.folder.path, run.key)):
            shutil.rmtree(work, ignore_errors=True)

    def remove_scratch(self) -> None:
        """Delete this session's scratch folder."""
        self.folder.remove()
