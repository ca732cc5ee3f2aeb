"""The session's side of a transfer: a job as its node gets it, and what comes back."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft_methods.methods.base import TRAINED
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.jobs import Done, Failure, PrepareJob, RunJob
from peft_methods.runs.executors.ray.messages import (
    LOG,
    MODEL,
    PREREQUISITES,
    STORE,
    WORK,
    FilePiece,
    Place,
)
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.reuse import SIGNATURE, unsign
from peft_methods.runs.store import Store, StoreError
from peft_methods.utils.files import is_only_a_path, path_of

# Settings of libraries that a run should find on its node. Paths are the node's own affair.
PASSED_ON = ("CUBLAS_", "DATASETS_", "HF_", "NCCL_", "PYTORCH_", "TOKENIZERS_", "TRANSFORMERS_")


def local_paths(job: RunJob | PrepareJob) -> dict[str, str]:
    """Return the files and folders that a job reads, by the setting that names them.

    A relative path begins at the session's directory. Hub ids and bundled names are none.
    """
    recipe = job.run.recipe if isinstance(job, RunJob) else job.recipe
    sources = dict(_sources(recipe))
    if isinstance(job, PrepareJob):
        for method in job.methods:
            for other, _ in method.prerequisites(recipe):
                sources |= {f"methods.{method.name}.sources: {v}": v for _, v in _sources(other)}
    return {
        setting: source if source.startswith("~") else str(Path(job.directory) / source)
        for setting, source in sources.items()
        if is_only_a_path(source) or path_of(source) is not None
    }


def _sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield "model.source", recipe.model.source
    yield "data.source", recipe.data.source
    if recipe.data.test_source is not None:
        yield "data.test_source", recipe.data.test_source


def without_its_files(job: RunJob | PrepareJob, place: Place) -> Done:
    """Return the result of a job whose files do not exist on its node."""
    paths = local_paths(job)
    name, path = next((name, path) for name, path in paths.items() if path in place.missing)
    setting = name.partition(":")[0]
    text = (
        f"{setting}: {path} does not exist on node {place.node}. Copy it to the same "
        "path on every node, use a folder that all nodes share, or name data and models by hub id."
    )
    if isinstance(job, PrepareJob):
        return Done(Failure(text, by_user=True, setting=setting))
    record = record_without_result(job.run, "failed", text)
    return _stored(job, record, job.work)


def on_node(job: RunJob | PrepareJob, place: Place) -> RunJob | PrepareJob:
    """Return the job with its folders on its node."""
    folder, environment = place.folder, passed_on()
    common: dict[str, Any] = {
        "log": folder / LOG,
        "devices": DeviceSet(place.gpus, job.needs.threads),
        "environment": environment,
        "directory": place.directory,
    }
    if isinstance(job, PrepareJob):
        return replace(job, **common)
    return replace(
        job,
        work=folder / WORK,
        store=folder / STORE,
        save_to=None if job.save_to is None else folder / MODEL,
        prerequisites=tuple(
            folder / PREREQUISITES / str(number) for number in range(len(job.prerequisites))
        ),
        **common,
    )


def passed_on() -> dict[str, str]:
    """Return the session's environment variables that a job gets on its node."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) and not os.path.isabs(value)
    }


def files_for(job: RunJob | PrepareJob) -> Iterator[tuple[str, Path]]:
    """Yield the files that a job needs on its node: the name there, and the path here."""
    if isinstance(job, PrepareJob):
        return
    for number, folder in enumerate(job.prerequisites):
        if (folder / TRAINED).is_file():
            yield f"{PREREQUISITES}/{number}/{TRAINED}", folder / TRAINED
    if job.checkpoint:
        folder = Store(job.store).checkpoints_of(job.run.key)
        for path in sorted(folder.glob("[!.]*")):
            yield f"{STORE}/{path.relative_to(job.store).as_posix()}", path


class Inbox:
    """The files of a job that have arrived, in a scratch folder."""

    def __init__(self, job: RunJob | PrepareJob, folder: Path) -> None:
        self.folder = folder
        self._job = job
        self._problem = ""
        self._incomplete = ""  # the file that pieces are missing of
        self._files = 0  # that are complete

    def write(self, piece: FilePiece) -> None:
        """Write a piece. A whole checkpoint goes to the store at once.

        An interrupt can lose a piece. The file is then not used.
        """
        path = self.folder / piece.name
        if self._incomplete != ("" if piece.offset == 0 else piece.name):
            self._problem = f"{self._incomplete or piece.name} did not arrive whole"
        self._incomplete = "" if piece.last else piece.name
        self._files += piece.last
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if piece.offset == 0 else "ab") as file:
                if file.tell() != piece.offset:
                    self._problem = f"{piece.name} did not arrive whole"
                    return
                file.write(piece.content)
                if piece.last:
                    file.flush()
                    os.fsync(file.fileno())
            if piece.last and (kept := self._checkpoint(piece.name)) is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, kept)
        except OSError as error:
            if self._checkpoint(piece.name) is not None:
                return  # the run goes on without this checkpoint
            self._problem = f"{piece.name} cannot be written here: {error.strerror}"

    def keep_checkpoints(self, names: tuple[str, ...]) -> None:
        """Delete the checkpoints that newer ones have replaced."""
        kept = {self._checkpoint(name) for name in names}
        for folder in {path.parent for path in kept if path is not None and path.is_file()}:
            for path in folder.iterdir():
                if path not in kept:
                    path.unlink(missing_ok=True)

    def _checkpoint(self, name: str) -> Path | None:
        """Return where the session keeps a file that is a checkpoint or a damaged one."""
        is_result = "/" not in name.removeprefix(f"{STORE}/")
        if isinstance(self._job, PrepareJob) or not name.startswith(f"{STORE}/") or is_result:
            return None
        return self._job.store / name.removeprefix(f"{STORE}/")

    def deliver(self, done: Done, files: int) -> Done:
        """Write a finished run's record, predictions and weights to the session's store.

        `files` is the number of files that its node has sent.
        """
        record = done.result
        if (
            not isinstance(self._job, RunJob)
            or not isinstance(record, Record)
            or done.may_pass
            or done.not_stored
        ):
            return done
        if not self._problem and files != self._files:
            self._problem = f"only {self._files} of {files} files arrived"
        if self._problem:
            return replace(done, not_stored=f"{record.spec.label}: {self._problem}.")
        if self._job.save_to is not None and record.status == "ok":
            record = self._with_model(record, self._job.save_to)
        return _stored(self._job, record, self.folder / STORE)

    def _with_model(self, record: Record, folder: Path) -> Record:
        """Move the saved model to its folder; a failure is noted in the record."""
        model = self.folder / MODEL
        try:
            if (model / SIGNATURE).is_file():
                folder.mkdir(parents=True, exist_ok=True)
                unsign(folder)
                files = sorted(path for path in model.rglob("*") if path.is_file())
                for path in sorted(files, key=lambda one: one.name == SIGNATURE):
                    target = folder / path.relative_to(model)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, target)
        except OSError as error:
            note = f"its model could not be saved to {folder}: {error.strerror}"
            return replace(record, message="; ".join(filter(None, [record.message, note])))
        return record

    def remove(self) -> None:
        """Delete the scratch folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stored(job: RunJob, record: Record, arrived: Path) -> Done:
    """Write a record, with the files that arrived with it, to the session's store."""
    trained = arrived / f"{record.fingerprint}.safetensors"
    store = Store(job.store)
    try:
        sent = Store(arrived).find(record.fingerprint)
        if sent is not None and (damage := Store(arrived).damage_of_files(sent, sent.files)):
            raise StoreError(f"{record.spec.label} did not arrive whole: {damage}.")
        predictions = Store(arrived).read_predictions_of(record.fingerprint)
        store.write(record, predictions, trained if trained.is_file() else None)
        if trained.is_file():  # where the runs that need it look
            job.work.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(trained, job.work / TRAINED)
    except StoreError as error:
        return Done(record, not_stored=str(error))
    except OSError as error:
        return Done(record, not_stored=f"{job.work / TRAINED} cannot be written: {error.strerror}.")
    if job.checkpoint and record.status == "ok":
        with contextlib.suppress(OSError):
            store.remove_checkpoints(job.run.key)
    return Done(record)
