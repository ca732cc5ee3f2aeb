"""One cell from start to end: data, model, method, training, the one look at the test set, the record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from peft_methods import checking, data, models, quality, saving
from peft_methods.cells import Cell, Preparation
from peft_methods.engines import stock
from peft_methods.engines.base import EpochResult, Training, collator_of, predict, refuse_unfit
from peft_methods.environment import describe, identity_part
from peft_methods.errors import first_line
from peft_methods.measuring import PHASES, CudaMemory, PhaseMeter, ResidentMemory, count_parameters
from peft_methods.methods import TRAINED, Task
from peft_methods.methods.base import Method
from peft_methods.quality import Predictions, Quality
from peft_methods.recipe import Recipe
from peft_methods.records import Record

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Places:
    """Folders of one cell's run: scratch of its own, what its stages left (and what they cost), where to keep its model."""

    work: Path
    stages: tuple[Path, ...] = ()
    source_seconds: float | None = None
    save_to: Path | None = None


class _Listener:
    """Between engine, meter and progress line."""

    def __init__(self, meter: PhaseMeter, progress: Progress, epochs: int) -> None:
        self.meter, self.progress, self.epochs = meter, progress, epochs

    def enter(self, phase: str) -> None:
        self.meter.enter(phase)

    def step(self, epoch: int, step: int, steps: int) -> None:
        self.progress({"epoch": epoch, "epochs": self.epochs, "step": step, "steps": steps})

    def epoch(self, result: EpochResult) -> None:
        self.progress({"epoch": result.epoch, "epochs": self.epochs, "validation_accuracy": result.validation_accuracy})


def prepare(recipe: Recipe, methods: tuple[Method, ...], device: str, *, threads: int) -> Preparation:
    """Read the data and build the model once, so that what is wrong with them is said before anything is trained."""
    _set_up_process(threads)
    started = time.perf_counter()
    texts = data.load(recipe.data)
    base = models.load(recipe.model, texts.facts.label_names, device=device)
    start_seconds = time.perf_counter() - started
    base.check_length(recipe.data.max_length)
    refuse_unfit(recipe.budget, base.model, device)
    reasons = {method.name: method.supports(base.shape, device) for method in methods}
    return Preparation(
        data=_plain_facts(texts.facts),
        unsupported={name: reason for name, reason in reasons.items() if reason},
        forward_seconds=_forward_seconds(texts, base, recipe),
        start_seconds=start_seconds,
    )


def _forward_seconds(texts: data.TextData, base: models.Base, recipe: Recipe) -> float:
    """Median time a row of three forward passes over training batches."""
    rows = texts.splits["train"].take(range(min(3 * recipe.budget.batch_size, len(texts.splits["train"]))))
    few = data.TextData({"train": rows, "validation": rows.take([]), "test": rows.take([])}, texts.facts)
    tokens, collate = data.tokenize(few, base.tokenizer, recipe.data.max_length).train, collator_of(recipe, base.tokenizer)
    predict(base.model, tokens, collate, recipe.budget.batch_size)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        predict(base.model, tokens, collate, recipe.budget.batch_size)
        times.append((time.perf_counter() - started) / len(tokens))
    return sorted(times)[1]


def run(cell: Cell, places: Places, progress: Progress, *, threads: int) -> tuple[Record, Predictions | None]:
    """Train and judge one cell. Errors are the caller's to catch; a source cell has no test predictions."""
    _set_up_process(threads)
    meter = PhaseMeter(_memory(cell.device), synchronize=_synchronize(cell.device))
    listener = _Listener(meter, progress, cell.recipe.budget.epochs)

    listener.enter("data")
    texts = data.load(cell.recipe.data)
    meter.set_base()
    listener.enter("load")
    set_seed(cell.seed)
    base = models.load(
        cell.recipe.model,
        texts.facts.label_names,
        quantization=cell.method.quantization,
        precision=cell.recipe.budget.precision,
        device=cell.device,
    )
    base.check_length(cell.recipe.data.max_length)
    model = cell.method.inject(base.model, Task(base.shape, base.head, places.stages))
    listener.enter("tokenize")
    tokens = data.tokenize(texts, base.tokenizer, cell.recipe.data.max_length)
    listener.enter("check")
    before = checking.remember(model, places.work)
    parameters = count_parameters(model, base.head)

    training = stock.train(
        model, cell.method, tokens, cell.recipe, base.tokenizer,
        head=base.head, seed=cell.seed, device=cell.device, workdir=places.work, listener=listener,
    )  # fmt: skip
    listener.enter("check")
    evidence = checking.evidence_of(
        model, before, decay=training.decay, shape=base.shape, expected_trainable=cell.method.expected_trainable(base.shape)
    )
    listener.enter("evaluate")
    tested = None if not len(tokens.test) else predict(
        model, tokens.test, collator_of(cell.recipe, base.tokenizer), cell.recipe.budget.evaluation_batch_size
    )  # fmt: skip
    judged = None if tested is None else quality.judge(tested, tokens.facts.label_names)
    listener.enter("save")
    said = _save(model, cell, base, places.save_to)
    kept = (places.work / TRAINED).stat().st_size
    meter.enter(None)

    environment = describe(cell.device)
    record = Record(
        cell=cell.spec(),
        status="ok",
        message=said,
        identity=cell.identity(weights=base.weights_sha256, data=tokens.facts.fingerprint, environment=identity_part(environment)),
        is_source=cell.is_source,
        metrics=_metrics(meter, training, judged, asdict(parameters), kept) | {"source_seconds": places.source_seconds},
        epochs=_curve(training, meter),
        best_epoch=training.best_epoch,
        quality=None if judged is None else asdict(judged),
        evidence=evidence,
        data=_plain_facts(tokens.facts),
        environment=environment | {"memory_kind": meter.memory.kind, "weights_sha256": base.weights_sha256},
    )
    return record, tested


def _save(model: nn.Module, cell: Cell, base: models.Base, folder: Path | None) -> str:
    """Keep the model where asked for; a full disk costs the model, not the figures."""
    try:
        if folder is not None:
            saving.save_trained(model, cell, base, folder)
    except (OSError, SafetensorError) as error:
        return f"its model could not be saved to {folder}: {first_line(error)}"
    return ""


def _metrics(
    meter: PhaseMeter, training: Training, judged: Quality | None, parameters: dict[str, int], checkpoint_bytes: int
) -> dict[str, float | None]:
    seconds = {f"{phase}_seconds": meter.seconds(phase) for phase in PHASES}
    trainable = parameters["method"] + parameters["head"]
    best = training.epochs[training.best_epoch - 1]
    names = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall")
    return {
        **{name: None if judged is None else getattr(judged, name) for name in names},
        **seconds,
        "validation_accuracy": best.validation_accuracy,
        "trainable_parameters": trainable,
        "method_parameters": parameters["method"],
        "head_parameters": parameters["head"],
        "total_parameters": parameters["total"],
        "trainable_share": trainable / parameters["total"],
        "samples_per_second": training.samples / seconds["train_seconds"],
        "tokens_per_second": training.tokens / seconds["train_seconds"],
        "peak_memory_bytes": meter.peak("warm_up", "train"),
        "checkpoint_bytes": checkpoint_bytes,
    }


def _curve(training: Training, meter: PhaseMeter) -> tuple[dict[str, float], ...]:
    """The engine's results with the seconds and the peak of each epoch's training phase."""
    stretches = [interval for interval in meter.intervals if interval.phase == "train"]
    return tuple(
        {**asdict(result), "train_seconds": stretch.seconds, "peak_memory_bytes": stretch.peak_bytes}
        for result, stretch in zip(training.epochs, stretches, strict=True)
    )


def _plain_facts(facts: data.DataFacts) -> dict[str, Any]:
    has_test = sum(facts.class_counts["test"]) > 0
    return {**asdict(facts), "majority": facts.majority if has_test else None}


def _memory(device: str) -> Any:
    return CudaMemory() if device.startswith("cuda") else ResidentMemory()


def _synchronize(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def _set_up_process(threads: int) -> None:
    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
