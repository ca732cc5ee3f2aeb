"""`estimate`: what training a model by each method will need, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from peft_methods.estimation.connected import default_estimator
from peft_methods.estimation.estimates import Progress, estimates_of, silent
from peft_methods.estimation.estimator import Estimator
from peft_methods.estimation.gpu import HOST, Gpu, gpu_of
from peft_methods.estimation.question import Question, question_of
from peft_methods.estimation.results import MethodEstimate
from peft_methods.estimation.time.devices import names_of
from peft_methods.training.registry import choose_engine
from peft_methods.utils.files import write_whole
from peft_methods.utils.units import format_bytes

VERSION = 1  # of the JSON
PROBE_ADVICE = (
    "this machine has such a GPU: `peft-methods estimate --probe` measures it within 30 seconds, "
    "and times come from its own rates then"
)


class Estimates(tuple[MethodEstimate, ...]):
    """The estimates of all methods, in the order of the tables, and what they are for."""

    question: Question
    gpu: Gpu | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        estimates: Iterable[MethodEstimate],
        question: Question,
        gpu: Gpu | None,
        notes: Iterable[str],
    ) -> Self:
        """Return estimates with what they are for. `notes` say what was chosen or is unknown."""
        made = cls(estimates)
        made.question, made.gpu, made.notes = question, gpu, tuple(notes)
        return made

    @property
    def heading(self) -> str:
        """One line: the model, the recipe, the batch, the engine and the GPU."""
        budget, data = self.question.recipe.budget, self.question.recipe.data
        accumulated = budget.gradient_accumulation
        parts = [
            f"{self.question.model} by recipe {self.question.recipe.name}",
            f"{budget.batch_size} rows of at most {data.max_length} tokens"
            + (f", {accumulated} batches a step" if accumulated > 1 else ""),
            budget.precision,
            f"engine {self.question.engine}",
        ]
        if budget.gradient_checkpointing:
            parts.append("gradient checkpointing")
        if self.gpu is not None:
            parts.append(_named(self.gpu))
        return f"Estimate: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values. Sizes are in bytes, times in seconds."""
        budget, data = self.question.recipe.budget, self.question.recipe.data
        gpu = self.gpu and {"name": self.gpu.name, "memory_bytes": self.gpu.memory_bytes}
        return {
            "version": VERSION,
            "model": self.question.model,
            "recipe": self.question.recipe.name,
            "task": self.question.recipe.task,
            "engine": self.question.engine,
            "batch_size": budget.batch_size,
            "max_length": data.max_length,
            "precision": budget.precision,
            "gradient_accumulation": budget.gradient_accumulation,
            "gradient_checkpointing": budget.gradient_checkpointing,
            "epochs": budget.epochs,
            "gpu": gpu,
            "methods": [asdict(one) for one in self],
            "notes": list(self.notes),
        }

    def write_json(self, path: str | Path) -> Path:
        """Write everything as JSON."""
        path = Path(path)
        write_whole(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        return path


def _named(gpu: Gpu) -> str:
    if gpu.is_host:
        return f"on {gpu.name}"
    name = f"{gpu.name}, " if gpu.device else ""
    return f"GPU: {name}{format_bytes(gpu.memory_bytes)}"


def estimate(
    model: str,
    *,
    data: str | None = None,
    recipe: str | None = None,
    task: str | None = None,
    methods: str | Sequence[str] = "all",
    gpu: str | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    precision: str | None = None,
    checkpointing: bool | None = None,
    engine: str = "auto",
    settings: Sequence[str] = (),
    trust_remote_code: bool = False,
    progress: Progress = silent,
    estimator: Estimator | None = None,
) -> Estimates:
    """Estimate what training a model by each method needs: memory, time, what fits into a GPU.

    Nothing is trained, and of the model a config is enough: `model` is a hub id, a folder with
    config.json, that file, or a preset such as "roberta-base". `recipe` is by default the usual one
    for this kind of model; the other arguments replace parts of it. `methods` are names, families
    or patterns. `gpu` is a name ("T4"), a size ("16GB"), with which there are no times, or "cpu",
    this machine's processor. `checkpointing` is gradient checkpointing. `progress` is called before
    each method. Returns a tuple of `MethodEstimate`, in bytes and seconds. A method that cannot be
    estimated has its reason as `problem`. Raises `PeftMethodsError` for wrong input.
    """
    estimator = estimator or default_estimator()
    device = None if gpu is None else gpu_of(gpu, estimator)
    question = question_of(
        model,
        data=data,
        recipe=recipe,
        task=task,
        methods=(methods,) if isinstance(methods, str) else tuple(methods),
        batch_size=batch_size,
        max_length=max_length,
        precision=precision,
        checkpointing=checkpointing,
        engine=engine if device is None else _engine_on(device, engine),
        settings=settings,
        trust_remote_code=trust_remote_code,
    )
    found, notes = estimates_of(question, device, estimator, progress)
    advice = (PROBE_ADVICE,) if device is not None and _is_unprobed_here(device, found) else ()
    return Estimates.of(found, question, device, (*notes, *advice))


def _engine_on(gpu: Gpu, engine: str) -> str:
    """Return the engine to ask for, on a CPU one that runs there. Raises `OptionError`."""
    return choose_engine(engine, HOST) if gpu.is_host else engine


def _is_unprobed_here(gpu: Gpu, found: Iterable[MethodEstimate]) -> bool:
    """Whether times are from the datasheet of a GPU that this machine has."""
    import torch

    if not any(one.time is not None and one.time.basis == "datasheet" for one in found):
        return False
    return torch.cuda.is_available() and gpu.name in names_of(torch.cuda.get_device_name())
