"""One run from start to end: data, model, method, training, test set (used once), record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from peft_methods.data.facts import TokenData
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.models import loading, ranks
from peft_methods.models.parameters import ParameterCounts, count_parameters
from peft_methods.profiling.environment import check_device, describe, fingerprint_part
from peft_methods.profiling.flops import cached_training_flops
from peft_methods.profiling.memory_peaks import share
from peft_methods.profiling.pace import pace_seconds
from peft_methods.profiling.profiler import Profiler, Turn
from peft_methods.runs import export, outcome
from peft_methods.runs.checkpoints import Checkpoints
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.inference import inference_metrics
from peft_methods.runs.isolation.kept import Kept, without_seed
from peft_methods.runs.outcome import RunOutcome
from peft_methods.runs.placement import model_of, place
from peft_methods.runs.prepare import Prefetched, plain_facts, set_up_process
from peft_methods.runs.record import Record, beside_spec
from peft_methods.runs.reuse import sign, unsign
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.saved_size import saved_size
from peft_methods.runs.scaling import on_one_gpu
from peft_methods.runs.scores import further_scores, generate_last, predict_last, quality_of
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.untrained import untrained_scores
from peft_methods.tasks.base import Predictions
from peft_methods.tasks.collate import Collator
from peft_methods.tasks.registry import TASKS
from peft_methods.training import weight_checks
from peft_methods.training.collate import make_collator
from peft_methods.training.determinism import refusal
from peft_methods.training.engine import Training, TrainingJob
from peft_methods.training.evidence import Evidence
from peft_methods.training.registry import engine_of
from peft_methods.utils.errors import first_line

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Loaded:
    """A run ready to train: its model with the method applied, its tokens, and its fingerprint.

    `resumable` is the same for any number of GPUs and threads: the fingerprint of checkpoints.
    `without_seed` is the same for all seeds.
    """

    base: loading.LoadedModel
    model: nn.Module
    test_texts: LabelledTexts
    tokens: TokenData
    before: weight_checks.StateBefore
    parameters: ParameterCounts
    environment: dict[str, Any]
    fingerprint: str
    resumable: str
    without_seed: str
    collate: Collator
    prefetch_seconds: Mapping[str, float]


def execute(
    run: RunSpec,
    paths: RunPaths,
    progress: Progress,
    *,
    threads: int,
    prefetched: Prefetched | None = None,
    turn: Turn | None = None,
    kept: Kept | None = None,
) -> tuple[Record, Predictions | None]:
    """Train and evaluate one run. The caller catches errors.

    The predictions are those for the test rows, or a trial's for the validation rows. Prerequisites
    and runs with random weights have none. The run trains only while it holds `turn`. Every rank of
    a run over several GPUs calls this, and rank 0's result counts. `kept` has what an earlier run
    of this process has left.
    """
    assert ranks.count() == run.recipe.budget.gpus, "the worker starts the ranks"
    set_up_process(threads, device=run.device, deterministic=run.deterministic)
    check_device(run.device)
    kept = kept or Kept()
    profiler = Profiler(run.device, progress, run.recipe.budget.epochs, turn, kept.gpu_levels)
    try:
        with profiler.running():
            run, paths = with_fitting_engine(run, paths)
            loaded = _load(run, paths, profiler, prefetched, kept)
            return _train_and_evaluate(run, paths, profiler, loaded)
    except RuntimeError as error:
        if (refused := refusal(error)) is None:
            raise
        raise refused from error


def _load(
    run: RunSpec,
    paths: RunPaths,
    profiler: Profiler,
    prefetched: Prefetched | None,
    kept: Kept,
) -> Loaded:
    """Read data and model, apply the method, and compute the run's fingerprint."""
    profiler.enter("data")
    texts = prefetched.texts if prefetched else kept.texts(run)
    profiler.enter("load")
    profiler.meter.set_base_level()
    base, model = model_of(run, paths, texts, prefetched, kept)
    profiler.enter("tokenize")
    tokens = (
        prefetched.tokens if prefetched else kept.tokens(run, base.tokenizer, base.tokenizer_sha256)
    )
    for rows in (tokens.train, tokens.validation, tokens.test):
        base.check_ids(rows.tokens["input_ids"])
    profiler.rows = len(tokens.train)
    profiler.enter("check")
    ready = prefetched.ready if prefetched else None
    before = ready.before if ready else weight_checks.snapshot(model, paths.work)
    environment = describe(run.device)
    digests: dict[str, Any] = {
        "weights": base.weights_sha256,
        "config": base.config_sha256,
        "tokenizer": base.tokenizer_sha256,
        "prerequisites": paths.prerequisite_fingerprints,
        "data": tokens.facts.fingerprint,
    }
    part = fingerprint_part(environment)
    parameters = count_parameters(model, base.head)
    place(run, model)
    return Loaded(
        base,
        model,
        texts.splits["test"],
        tokens,
        before,
        parameters=parameters,
        environment=environment,
        fingerprint=run.fingerprint(**digests, environment=part),
        resumable=on_one_gpu(run).fingerprint(**digests, environment={**part, "threads": None}),
        without_seed=without_seed(run).fingerprint(**digests, environment=part),
        collate=make_collator(run.recipe, base.tokenizer),
        prefetch_seconds=prefetched.seconds if prefetched else {},
    )


def _train_and_evaluate(
    run: RunSpec, paths: RunPaths, profiler: Profiler, loaded: Loaded
) -> tuple[Record, Predictions | None]:
    checkpoints = None
    if paths.results is not None:
        key = [loaded.resumable, loaded.before.frozen]
        checkpoints = Checkpoints(paths.results, run, key)
    job = _job(run, paths, loaded)
    profiler.enter("baseline")
    untrained = untrained_scores(run, loaded)
    profiler.enter("check")
    before = pace_seconds(run.device)
    training = engine_of(run.engine).train(job, profiler, checkpoints)
    profiler.enter("check")
    pace = (before + pace_seconds(run.device)) / 2
    evidence = _evidence(run, loaded, training)
    profiler.enter("evaluate")
    predicted = predict_last(run, loaded.model, loaded.tokens, loaded.collate)
    profiler.enter("generate")
    predicted = generate_last(run, loaded.model, loaded.base, predicted, loaded.test_texts)
    profiler.enter("evaluate")
    scores = quality_of(run, predicted, loaded.tokens.facts.label_names)
    further = further_scores(run, loaded.model, loaded.base.tokenizer, untrained)
    profiler.enter("save")
    unsaved = _save(run, loaded, paths.save_to)
    scratch, rows = paths.work / f"saved-{ranks.rank()}", loaded.tokens.facts.fingerprint
    size = saved_size(loaded.model, run, loaded.base, scratch, rows)
    profiler.enter("check")
    model_flops = None
    if paths.matmul_flops_per_second is not None and run.role == "main":
        counted = cached_training_flops(job, loaded.without_seed)
        model_flops = outcome.training_flops(job, training, counted)
    profiler.enter("infer")
    inference = inference_metrics(run, loaded.model, loaded.tokens.test, loaded.collate, profiler)
    profiler.enter(None)
    found = RunOutcome(
        training,
        evidence,
        quality=scores,
        further=further,
        untrained=untrained,
        size=size,
        inference=inference,
        pace_seconds=pace,
        model_flops=model_flops,
        notes=(*(checkpoints.notes if checkpoints else ()), *unsaved),
        resumed_after=tuple(checkpoints.resumed_after) if checkpoints else (),
    )
    record = _record(run, paths, profiler, loaded, found)
    if paths.save_to is not None and not unsaved and ranks.is_first():
        sign(paths.save_to, record.fingerprint)
    return record, predicted


def _job(run: RunSpec, paths: RunPaths, loaded: Loaded) -> TrainingJob:
    return TrainingJob(
        model=loaded.model,
        method=run.method,
        data=loaded.tokens,
        recipe=run.recipe,
        tokenizer=loaded.base.tokenizer,
        head=loaded.base.head,
        seed=run.seed,
        device=run.device,
        workdir=paths.work,
    )


def _evidence(run: RunSpec, loaded: Loaded, training: Training) -> Evidence:
    return weight_checks.weight_evidence(
        loaded.model,
        loaded.before,
        decay=training.decay,
        architecture=loaded.base.architecture,
        head=loaded.base.head,
        method=run.method,
    )


def _save(run: RunSpec, loaded: Loaded, folder: Path | None) -> list[str]:
    """Save the model where requested. A full disk costs the model and not the figures."""
    if folder is None:
        return []
    state = export.whole_state(loaded.model, run.method)
    if not ranks.is_first():
        return []
    try:
        unsign(folder)
        rows = loaded.tokens.facts.fingerprint
        export.save_trained(loaded.model, run, loaded.base, folder, state, data_sha256=rows)
    except (OSError, SafetensorError) as error:
        return [f"its model could not be saved to {folder}: {first_line(error)}"]
    return []


def _record(
    run: RunSpec, paths: RunPaths, profiler: Profiler, loaded: Loaded, found: RunOutcome
) -> Record:
    meter, training, facts = profiler.meter, found.training, loaded.tokens.facts
    if found.untrained:
        facts = replace(facts, trivial_baseline=found.untrained)
    return Record(
        spec=run,
        status="ok",
        message="; ".join(found.notes),
        fingerprint=loaded.fingerprint,
        tuning=run.tuning,
        **beside_spec(run),
        metrics={
            **outcome.quality_metrics(TASKS[run.recipe.task], found.quality, training),
            **found.further,
            **outcome.parameter_metrics(loaded.parameters),
            **outcome.time_metrics(
                meter, training, loaded.prefetch_seconds, random_tokens=facts.random
            ),
            **profiler.metrics(),
            **found.inference,
            "pace_seconds": found.pace_seconds,
            **asdict(found.size),
            "source_seconds": paths.prerequisite_seconds,
            **outcome.communication_metrics(training),
            "model_flops_utilization": share(
                found.model_flops,
                meter.seconds("train") * ranks.count() * (paths.matmul_flops_per_second or 0),
            ),
        },
        epochs=outcome.curve(training, profiler),
        best_epoch=training.best_epoch,
        quality=None if found.quality is None else found.quality.plain(),
        evidence=found.evidence,
        data=plain_facts(facts),
        environment={
            **loaded.environment,
            **profiler.environment(),
            "model_type": loaded.base.architecture.model_type,
            "weights_sha256": loaded.base.weights_sha256,
            "config_sha256": loaded.base.config_sha256,
            "tokenizer_sha256": loaded.base.tokenizer_sha256,
            "engine_note": paths.engine_note,
            "model_notes": list(loaded.base.notes),
            "compiled_graphs": training.compiled_graphs,
            "resumed_after_epochs": list(found.resumed_after),
        },
    )
