"""One cell from start to end: data, model, method, training, the one look at the test set, the record."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from peft_methods import checking, data, models, quality, saving, synthetic
from peft_methods.cells import Cell
from peft_methods.checkpoints import Checkpoints
from peft_methods.determinism import refusal
from peft_methods.engines.base import Training
from peft_methods.engines.batches import Collator, collator_of, predict
from peft_methods.engines.layers import compilations
from peft_methods.engines.registry import engine_named
from peft_methods.environment import check_device, describe, identity_part
from peft_methods.errors import first_line
from peft_methods.flops import training_flops
from peft_methods.inference import InferenceCost, cost_of
from peft_methods.instruments import Instruments
from peft_methods.layouts import ModelShape
from peft_methods.measuring import PHASES, PhaseMeter, count_parameters
from peft_methods.methods import TRAINED, Task
from peft_methods.quality import Predictions, Quality
from peft_methods.records import Record
from peft_methods.resuming import sign, unsign
from peft_methods.starting import Ahead, load, plain_facts, set_up_process

TIMES_OF_TEXTS = (
    "data_seconds",
    "tokenize_seconds",
)  # drawing tokens takes another time than reading texts
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Places:
    """Folders of one cell's run: scratch of its own, what its stages left (and what they cost), where to keep its model.

    `engine_note` says why the engine is not the one that was asked for; `stage_identities` are those of the stages' records.
    `results` is given where epochs are to be kept: the folder whose checkpoints training goes on from.
    """

    work: Path
    stages: tuple[Path, ...] = ()
    source_seconds: float | None = None
    save_to: Path | None = None
    matmul_flops_per_second: float | None = None
    engine_note: str = ""
    stage_identities: tuple[str, ...] = ()
    results: Path | None = None


def run(
    cell: Cell, places: Places, progress: Progress, *, threads: int, ahead: Ahead | None = None
) -> tuple[Record, Predictions | None]:
    """Train and judge one cell. Errors are the caller's to catch; a source cell and random weights have no test predictions."""
    set_up_process(threads, deterministic=cell.deterministic)
    check_device(cell.device)
    instruments = Instruments(cell.device, progress, cell.recipe.budget.epochs)
    try:
        with instruments.running():
            return _run(cell, places, instruments, ahead)
    except RuntimeError as error:
        if (refused := refusal(error)) is None:
            raise
        raise refused from error


def _run(
    cell: Cell, places: Places, instruments: Instruments, ahead: Ahead | None
) -> tuple[Record, Predictions | None]:
    budget, listener, meter = cell.recipe.budget, instruments, instruments.meter
    listener.enter("data")
    texts = ahead.texts if ahead else synthetic.load(cell.recipe)
    listener.enter("load")
    meter.set_base()
    ready = ahead.ready if ahead else None
    base = (
        ready.base
        if ready
        else load(cell, texts, cell.device, drawn=ahead.drawn if ahead else None)
    )
    if ahead and ahead.drawn:
        shutil.rmtree(ahead.drawn, ignore_errors=True)
    model = (
        ready.model.to(cell.device)
        if ready
        else cell.method.inject(base.model, Task(base.shape, base.head, places.stages))
    )
    listener.enter("tokenize")
    tokens = (
        ahead.tokens if ahead else data.tokenize(texts, base.tokenizer, cell.recipe.data.max_length)
    )
    instruments.rows = len(tokens.train)
    listener.enter("check")
    before = ready.before if ready else checking.remember(model, places.work)
    parameters = count_parameters(model, base.head)
    environment = describe(cell.device)
    identity = cell.identity(
        weights=base.weights_sha256,
        config=base.config_sha256,
        tokenizer=base.tokenizer_sha256,
        stages=places.stage_identities,
        data=tokens.facts.fingerprint,
        environment=identity_part(environment),
    )
    checkpoints = (
        None
        if places.results is None
        else Checkpoints(places.results, cell, [identity, before.frozen])
    )

    training = engine_named(cell.engine).train(
        model, cell.method, tokens, cell.recipe, base.tokenizer,
        head=base.head, seed=cell.seed, device=cell.device, workdir=places.work, listener=listener, keeper=checkpoints,
    )  # fmt: skip
    listener.enter("check")
    evidence = checking.evidence_of(
        model,
        before,
        decay=training.decay,
        shape=base.shape,
        head=base.head,
        expected_trainable=cell.method.expected_trainable(base.shape),
    )
    listener.enter("evaluate")
    collate = collator_of(cell.recipe, base.tokenizer)
    asked = len(tokens.test) and not cell.trial
    tested = (
        predict(model, tokens.test, collate, budget.evaluation_batch_size, budget.precision)
        if asked
        else None
    )
    if not cell.recipe.has_quality:
        tested = None  # the pass was timed; what it predicted says nothing
    judged = (
        None
        if tested is None or not tested.is_finite
        else quality.judge(tested, tokens.facts.label_names)
    )
    listener.enter("save")
    unsaved = _save(model, cell, base, places.save_to)
    kept = (places.work / TRAINED).stat().st_size
    listener.enter("infer")
    in_use = _inference(cell, model, tokens, collate, instruments)
    listener.enter(None)

    lengths = tokens.train.lengths * len(training.epochs)
    utilization = _utilization(
        cell, base.shape, lengths, meter.seconds("train"), places.matmul_flops_per_second
    )
    record = Record(
        cell=cell.spec(),
        status="ok",
        message="; ".join([*(checkpoints.notes if checkpoints else ()), *unsaved]),
        identity=identity,
        is_source=cell.is_source,
        tuning=cell.tuning,
        metrics={
            **_metrics(
                meter,
                training,
                judged,
                asdict(parameters),
                checkpoint_bytes=kept,
                spent_ahead=ahead.seconds if ahead else {},
            ),
            **instruments.metrics(),
            **in_use,
            "model_flops_utilization": utilization,
            "source_seconds": places.source_seconds,
            **(dict.fromkeys(TIMES_OF_TEXTS) if tokens.facts.random else {}),
        },
        epochs=_curve(training, instruments),
        best_epoch=training.best_epoch,
        quality=None if judged is None else asdict(judged),
        evidence=evidence,
        data=plain_facts(tokens.facts),
        environment={
            **environment,
            **instruments.environment(),
            "weights_sha256": base.weights_sha256,
            "config_sha256": base.config_sha256,
            "tokenizer_sha256": base.tokenizer_sha256,
            "engine_note": places.engine_note,
            "compiled_graphs": compilations() if cell.engine == "graphed" else {},
            "resumed_after_epochs": checkpoints.resumed_after if checkpoints else [],
        },
    )
    if places.save_to is not None and not unsaved:
        sign(places.save_to, record.identity)
    return record, tested


def _save(model: nn.Module, cell: Cell, base: models.Base, folder: Path | None) -> list[str]:
    """Keep the model where asked for; a full disk costs the model, not the figures, and is said."""
    try:
        if folder is not None:
            unsign(folder)
            saving.save_trained(model, cell, base, folder)
    except (OSError, SafetensorError) as error:
        return [f"its model could not be saved to {folder}: {first_line(error)}"]
    return []


def _metrics(
    meter: PhaseMeter,
    training: Training,
    judged: Quality | None,
    parameters: dict[str, int],
    *,
    checkpoint_bytes: int,
    spent_ahead: dict[str, float],
) -> dict[str, float | None]:
    seconds = {
        f"{phase}_seconds": meter.seconds(phase) + spent_ahead.get(f"{phase}_seconds", 0.0)
        for phase in PHASES
    }
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
        "checkpoint_bytes": checkpoint_bytes,
    }


def _curve(training: Training, instruments: Instruments) -> tuple[dict[str, float | None], ...]:
    """The engine's results with the seconds and the method's peak of each epoch's training phase."""
    stretches = [interval for interval in instruments.meter.intervals if interval.phase == "train"]
    return tuple(
        {
            **asdict(result),
            "train_seconds": stretch.seconds,
            "peak_memory_bytes": instruments.methods_peak(stretch),
        }
        for result, stretch in zip(training.epochs, stretches, strict=True)
    )


def _inference(
    cell: Cell,
    model: nn.Module,
    tokens: data.TokenData,
    collate: Collator,
    instruments: Instruments,
) -> dict[str, float]:
    """What the trained model costs in use, as trained and merged; it is used up."""
    if cell.is_source:
        return {}
    timed = partial(
        cost_of,
        rows=tokens.test,
        collate=collate,
        precision=cell.recipe.budget.precision,
        synchronize=instruments.synchronize,
    )
    found = _named("", timed(model))
    merged = cell.method.merge(model)
    return found if merged is None else found | _named("merged_", timed(merged))


def _named(prefix: str, cost: InferenceCost | None) -> dict[str, float]:
    return (
        {} if cost is None else {f"{prefix}{name}": value for name, value in asdict(cost).items()}
    )


def _utilization(
    cell: Cell, shape: ModelShape, lengths: list[int], train_seconds: float, rate: float | None
) -> float | None:
    """Model FLOPs over what the device could have done in the training time; None where its rate or the layout is not known.

    `lengths` are those of all rows trained on, epoch by epoch.
    """
    if rate is None or shape.layout is None:
        return None
    return training_flops(shape, lengths, cell.method.passes) / (train_seconds * rate)
