"""Before training: check a recipe once, and start a run as far as no GPU is needed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from peft_methods.data import synthetic, tokenize
from peft_methods.data.facts import DataFacts, TextData, TokenData
from peft_methods.methods.base import Method
from peft_methods.methods.row_length import too_long
from peft_methods.models import loading
from peft_methods.models.host_threads import set_on_gpu
from peft_methods.models.tokenizer import load_tokenizer, tokenizer_digest
from peft_methods.profiling.environment import check_device, describe, fingerprint_part
from peft_methods.profiling.matmul_rate import cached_matmul_rate
from peft_methods.profiling.profiler import Profiler
from peft_methods.recipes.schema import Recipe
from peft_methods.runs import forward_time
from peft_methods.runs.apply_context import context_of
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.isolation.kept import Kept
from peft_methods.runs.prepared import Fingerprints, PreparedRecipe
from peft_methods.runs.spec import RunSpec, rows_name
from peft_methods.tasks.base import Task
from peft_methods.tasks.inference import with_fitting_task
from peft_methods.tasks.registry import TASKS
from peft_methods.training import weight_checks
from peft_methods.training.cuda_graphs.attention import disable_cudnn_attention, register_attention
from peft_methods.training.determinism import set_deterministic
from peft_methods.training.distributed.support import unsupported
from peft_methods.training.engine import check_budget
from peft_methods.utils.cache import cached_value
from peft_methods.utils.errors import DataError


def prepare(
    recipe: Recipe,
    methods: tuple[Method, ...],
    device: str,
    *,
    threads: int,
    without_weights: bool = False,
) -> PreparedRecipe:
    """Read the data and build the model once, so that errors are found before any training.

    Methods that cannot train this model are listed with the reason. `without_weights`, for a dry
    run: the model is built from its config, and there are no digests of weights.
    """
    set_up_process(threads, device=device)
    check_device(device)
    profiler = Profiler(device, lambda news: None, recipe.budget.epochs)
    with profiler.running():
        return _prepare(recipe, methods, device, profiler, without_weights)


def _prepare(
    recipe: Recipe,
    methods: tuple[Method, ...],
    device: str,
    profiler: Profiler,
    without_weights: bool,
) -> PreparedRecipe:
    started = time.perf_counter()
    profiler.enter("data")
    task = TASKS[recipe.task]
    try:
        texts = synthetic.load(recipe, task, subset_seed=recipe.budget.seed_list()[0])
    except DataError as error:
        raise with_fitting_task(recipe, error) from None
    profiler.enter("prepare")
    base = _base(recipe, texts, device, without_weights)
    is_timed = base.model.device.type != loading.META
    start_seconds = time.perf_counter() - started
    least = forward_time.least_seconds(texts, base, recipe, device) if without_weights else 0.0
    check_budget(recipe.budget, base.model, device)
    for evaluation in task.extra_evaluations(recipe):
        if evaluation.check is not None:
            evaluation.check()
    if task.checks_tokens:
        tokenize.tokenize(texts, base.tokenizer, recipe.data, task)
    reasons = {
        one.name: unsupported(one, base.architecture, device, recipe.budget)
        or too_long(base.longest, recipe.data.max_length, one)
        for one in methods
    }
    forward_seconds = forward_time.timed_seconds(texts, base, recipe, least) if is_timed else least
    weights, config, tokenizer = base.weights_sha256, base.config_sha256, base.tokenizer_sha256
    del base  # or two models would be in memory
    able = [method for method in methods if not reasons[method.name]]
    return PreparedRecipe(
        data=plain_facts(texts.facts),
        unsupported={name: reason for name, reason in reasons.items() if reason},
        forward_seconds=forward_seconds,
        start_seconds=start_seconds,
        is_timed=is_timed,
        has_weights=not without_weights,
        matmul_flops_per_second=cached_matmul_rate() if device.startswith("cuda") else None,
        facts=Fingerprints(
            weights=(
                {}
                if without_weights
                else {"": weights}
                | _quantized(recipe, able, texts.facts.label_names, device, weights)
            ),
            config=config,
            tokenizer=tokenizer,
            data={
                recipe.name: texts.facts.fingerprint,
                **_drawn_rows(recipe, task),
                **_prerequisites(recipe, able),
            },
            environment=fingerprint_part(describe(device)),
        ),
    )


def _base(
    recipe: Recipe, texts: TextData, device: str, without_weights: bool
) -> loading.LoadedModel:
    """Load the model. `without_weights`, draw random ones if it is small, to time it, or none."""
    head, place = TASKS[recipe.task].head, loading.META if without_weights else device
    base = loading.load(recipe.model, head, texts.facts.label_names, device=place)
    base.check_length(recipe.data.max_length)
    if without_weights and forward_time.can_be_timed(base.model):
        return loading.with_drawn_weights(base, recipe.model, head, device)
    return base


def _quantized(
    recipe: Recipe, methods: Sequence[Method], names: tuple[str, ...], device: str, weights: str
) -> dict[str, str]:
    """Return digests of the quantized weights. Errors are ignored: the runs will record them."""
    found: dict[str, str] = {}
    for quantization in {one for method in methods if (one := method.info.quantization)}:
        wanted: dict[str, Any] = {
            "quantization": quantization,
            "precision": recipe.budget.precision,
            "device": device,
        }
        key = [
            weights,
            asdict(recipe.model),
            asdict(TASKS[recipe.task].head),
            wanted,
            fingerprint_part(describe(device)),
            code_fingerprint(loading),
        ]
        with contextlib.suppress(Exception):
            found[quantization] = cached_value(
                "quantized", key, partial(_digest, recipe, names, wanted)
            )
    return found


def _digest(recipe: Recipe, names: tuple[str, ...], wanted: dict[str, Any]) -> str:
    return loading.load(recipe.model, TASKS[recipe.task].head, names, **wanted).weights_sha256


def _drawn_rows(recipe: Recipe, task: Task) -> dict[str, str]:
    """Return the data fingerprint of every seed that draws rows. Raises `DataError`."""
    found = {}
    for seed in recipe.budget.seed_list():
        if seeds := recipe.budget.row_seeds(seed):
            found[rows_name(recipe, seeds)] = synthetic.load(recipe, task, seeds).facts.fingerprint
    return found


def _prerequisites(recipe: Recipe, methods: Sequence[Method]) -> dict[str, str]:
    """Return the data fingerprints of prerequisite runs, by recipe name.

    Errors are ignored: the runs will record them.
    """
    found: dict[str, str] = {}
    needed = (one for method in methods for one, _ in method.prerequisites(recipe))
    for other in {one.name: one for one in needed}.values():
        with contextlib.suppress(Exception):
            texts = synthetic.load(other, TASKS[other.task])
            found[other.name] = texts.facts.fingerprint
    return found


@dataclass(frozen=True)
class ReadyModel:
    """A run's model on the host with the method applied, and its weights before training."""

    base: loading.LoadedModel
    model: nn.Module
    before: weight_checks.StateBefore


@dataclass(frozen=True)
class Prefetched:
    """The start of a run that needs no GPU, and its seconds by phase.

    Models are quantized on the GPU only, and pass training rows before their method is applied
    there too: then there is no `ready`.
    """

    texts: TextData
    tokens: TokenData
    ready: ReadyModel | None
    seconds: dict[str, float]


def prefetch(
    run: RunSpec,
    *,
    work: Path,
    prerequisites: tuple[Path, ...],
    threads: int,
    kept: Kept | None = None,
) -> Prefetched:
    """Start a run as far as no GPU is needed. `kept` may have its rows from an earlier run."""
    kept = kept or Kept()
    set_up_process(threads, device=run.device, deterministic=run.deterministic)
    seconds: dict[str, float] = {}
    ready = None
    task, info = TASKS[run.recipe.task], run.method.info
    needs_gpu = bool(info.quantization or info.reads_rows)
    with _timed(seconds, "data"):
        texts = kept.texts(run)
    with _timed(seconds, "load"):
        if needs_gpu:
            tokenizer = load_tokenizer(run.recipe.model, task.head)
            sha256 = tokenizer_digest(tokenizer)
        else:
            base = load(run, texts, "cpu")
            rows = partial(kept.tokens, run, base.tokenizer, base.tokenizer_sha256)
            context = context_of(run, base, texts.facts.label_names, prerequisites, rows)
            tokenizer, sha256 = base.tokenizer, base.tokenizer_sha256
            model = run.method.apply(base.model, context)
    with _timed(seconds, "tokenize"):
        tokens = kept.tokens(run, tokenizer, sha256)
    if not needs_gpu:
        with _timed(seconds, "check"):
            ready = ReadyModel(base, model, weight_checks.snapshot(model, work))
    return Prefetched(texts, tokens, ready, seconds)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[f"{phase}_seconds"] = time.perf_counter() - started


def load(run: RunSpec, texts: TextData, device: str) -> loading.LoadedModel:
    """Load the run's model. Its seed determines the new weights, those of the method too."""
    set_seed(run.recipe.budget.seed_of("initialisation", run.seed))
    wanted: dict[str, Any] = {
        "quantization": run.method.info.quantization,
        "precision": run.recipe.budget.precision,
        "device": device,
    }
    wanted["is_sharded"] = run.recipe.budget.strategy == "fsdp"
    head = TASKS[run.recipe.task].head
    base = loading.load(run.recipe.model, head, texts.facts.label_names, **wanted)
    base.check_length(run.recipe.data.max_length)
    return base


def set_up_process(threads: int, *, device: str, deterministic: bool = False) -> None:
    """Set threads and deterministic algorithms, and silence the libraries."""
    torch.set_num_threads(threads)
    set_on_gpu(on_gpu=device != "cpu")
    set_deterministic(on=deterministic)
    disable_cudnn_attention()
    register_attention()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def plain_facts(facts: DataFacts) -> dict[str, Any]:
    """Return the facts as JSON values. `majority` is the trivial baseline's accuracy."""
    return {**asdict(facts), "majority": facts.trivial_baseline.get("accuracy")}
