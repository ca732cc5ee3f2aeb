"""What comes before training: a recipe tried once, and the start of a cell that needs no GPU yet."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from peft_methods import checking, data, models, synthetic
from peft_methods.caching import remembered_value
from peft_methods.cells import Cell, Facts, Preparation
from peft_methods.code_fingerprint import code_fingerprint
from peft_methods.determinism import be_deterministic
from peft_methods.engines.attention import avoid_attention_plans
from peft_methods.engines.base import refuse_unfit
from peft_methods.engines.batches import collator_of, predict
from peft_methods.environment import check_device, describe, identity_part
from peft_methods.flops import device_rate
from peft_methods.instruments import Instruments
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.recipe import Recipe


def prepare(
    recipe: Recipe, methods: tuple[Method, ...], device: str, *, threads: int
) -> Preparation:
    """Read the data and build the model once, so that what is wrong with them is said before anything is trained."""
    set_up_process(threads)
    check_device(device)
    instruments = Instruments(device, lambda news: None, recipe.budget.epochs)
    with instruments.running():
        return _prepare(recipe, methods, device, instruments)


def _prepare(
    recipe: Recipe, methods: tuple[Method, ...], device: str, instruments: Instruments
) -> Preparation:
    started = time.perf_counter()
    instruments.enter("data")
    texts = synthetic.load(recipe)
    instruments.enter("prepare")
    base = models.load(recipe.model, texts.facts.label_names, device=device)
    start_seconds = time.perf_counter() - started
    base.check_length(recipe.data.max_length)
    refuse_unfit(recipe.budget, base.model, device)
    reasons = {method.name: method.unsupported(base.shape, device) for method in methods}
    forward_seconds = _forward_seconds(texts, base, recipe)
    weights, config, tokenizer = base.weights_sha256, base.config_sha256, base.tokenizer_sha256
    del base  # or two models would be in memory
    able = [method for method in methods if not reasons[method.name]]
    return Preparation(
        data=plain_facts(texts.facts),
        unsupported={name: reason for name, reason in reasons.items() if reason},
        forward_seconds=forward_seconds,
        start_seconds=start_seconds,
        matmul_flops_per_second=device_rate() if device.startswith("cuda") else None,
        facts=Facts(
            weights={
                "": weights,
                **_quantized(recipe, able, texts.facts.label_names, device, weights),
            },
            config=config,
            tokenizer=tokenizer,
            data={recipe.name: texts.facts.fingerprint, **_sources(recipe, able)},
            environment=identity_part(describe(device)),
        ),
    )


def _quantized(
    recipe: Recipe, methods: Sequence[Method], names: tuple[str, ...], device: str, weights: str
) -> dict[str, str]:
    """The digests of the weights as they are once quantised. What fails here is met again in its cell, whose record tells of it."""
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
            wanted,
            identity_part(describe(device)),
            code_fingerprint(models),
        ]
        with contextlib.suppress(Exception):
            found[quantization] = remembered_value(
                "quantized", key, partial(_digest, recipe, names, wanted)
            )
    return found


def _digest(recipe: Recipe, names: tuple[str, ...], wanted: dict[str, Any]) -> str:
    return models.load(recipe.model, names, **wanted).weights_sha256


def _sources(recipe: Recipe, methods: Sequence[Method]) -> dict[str, str]:
    """The fingerprints of the data that earlier stages train on, by their recipes' names. Failures as in `_quantized`."""
    found: dict[str, str] = {}
    for source in {
        stage.name: stage for method in methods for stage, _ in method.prerequisites(recipe)
    }.values():
        with contextlib.suppress(Exception):
            found[source.name] = synthetic.load(source).facts.fingerprint
    return found


def _forward_seconds(texts: data.TextData, base: models.Base, recipe: Recipe) -> float:
    """Median time a row of up to three passes over three training batches, none begun after 2 s; one batch warms up before."""
    size = recipe.budget.batch_size
    rows = texts.splits["train"].take(range(min(3 * size, len(texts.splits["train"]))))
    first = rows.take(range(min(size, len(rows))))
    few = replace(texts, splits={"train": rows, "validation": first, "test": rows.take([])})
    tokens, collate = (
        data.tokenize(few, base.tokenizer, recipe.data.max_length),
        collator_of(recipe, base.tokenizer),
    )
    predict(base.model, tokens.validation, collate, size)
    clock = [time.perf_counter()]
    while len(clock) == 1 or (len(clock) <= 3 and clock[-1] < clock[0] + 2):
        predict(base.model, tokens.train, collate, size)
        clock.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(clock)) / len(tokens.train)


@dataclass(frozen=True)
class Ready:
    """A cell's model on the host, its method in place, and its state before training."""

    base: models.Base
    model: nn.Module
    before: checking.Before


@dataclass(frozen=True)
class Ahead:
    """What a cell's process did before the GPU was its own, and what that took (by phase).

    A model is quantised on the GPU alone: no `ready` then, but its random weights lie in `drawn`.
    """

    texts: data.TextData
    tokens: data.TokenData
    ready: Ready | None
    drawn: Path | None
    seconds: dict[str, float]


def load_ahead(cell: Cell, *, work: Path, stages: tuple[Path, ...], threads: int) -> Ahead:
    """All of a cell's start that needs no GPU. The seed is set here where the model is loaded, as in `run` without it."""
    set_up_process(threads, deterministic=cell.deterministic)
    seconds: dict[str, float] = {}
    ready = drawn = None
    with _timed(seconds, "data"):
        texts = synthetic.load(cell.recipe)
    with _timed(seconds, "load"):
        if cell.method.info.quantization:
            tokenizer = models.load_tokenizer(cell.recipe.model)
            drawn = _drawn(cell, texts, work)
        else:
            base = load(cell, texts, "cpu")
            tokenizer, model = (
                base.tokenizer,
                cell.method.apply(base.model, ApplyContext(base.shape, base.head, stages)),
            )
    with _timed(seconds, "tokenize"):
        tokens = data.tokenize(texts, tokenizer, cell.recipe.data.max_length)
    if not cell.method.info.quantization:
        with _timed(seconds, "check"):
            ready = Ready(base, model, checking.remember(model, work))
    return Ahead(texts, tokens, ready, drawn, seconds)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[f"{phase}_seconds"] = time.perf_counter() - started


def _drawn(cell: Cell, texts: data.TextData, work: Path) -> Path | None:
    """Where the cell's random weights lie now; None where its weights are not random. A part of them is none."""
    if cell.recipe.model.weights != "random":
        return None
    folder = work / "drawn"
    try:
        models.save_drawn(cell.recipe.model, texts.facts.label_names, folder)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def load(
    cell: Cell, texts: data.TextData, device: str, *, drawn: Path | None = None
) -> models.Base:
    """The cell's classifier as its seed draws it."""
    set_seed(cell.seed)
    wanted: dict[str, Any] = {
        "quantization": cell.method.info.quantization,
        "precision": cell.recipe.budget.precision,
        "device": device,
    }
    base = models.load(cell.recipe.model, texts.facts.label_names, drawn=drawn, **wanted)
    base.check_length(cell.recipe.data.max_length)
    return base


def set_up_process(threads: int, *, deterministic: bool = False) -> None:
    """Threads, the algorithms allowed, and libraries that keep quiet."""
    torch.set_num_threads(threads)
    be_deterministic(on=deterministic)
    avoid_attention_plans()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def plain_facts(facts: data.DataFacts) -> dict[str, Any]:
    """As JSON values; without labels to judge by there is no majority."""
    judged = sum(facts.class_counts["test"]) > 0 and not facts.random
    return {**asdict(facts), "majority": facts.majority if judged else None}
