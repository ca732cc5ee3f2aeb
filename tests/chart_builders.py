"""Comparisons to draw: any number of methods, metrics, seeds and failures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from builders import CORE, TASK, make_predictions, make_record, unregistered
from peft_methods.analysis import comparison
from peft_methods.analysis.comparison import Comparison
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.registry import METHODS, Registry
from peft_methods.profiling.metrics import MEMORY_PARTS
from peft_methods.profiling.phases import PHASES
from peft_methods.runs.record import Record
from peft_methods.tasks.class_predictions import ClassPredictions

KNOWN = CORE
LONG_TITLE = "Low-rank updates of every linear layer with a rank of their own, method"


def register(patch: pytest.MonkeyPatch, count: int, title: str = LONG_TITLE) -> tuple[str, ...]:
    """Return the first `count` method names. Adds methods to the registry if it has fewer."""
    more = [
        type(
            f"Method{n}",
            (LoRA,),
            {
                "info": replace(
                    LoRA.info, name=f"method_{n}", title=f"{title} {n}" if n % 3 else f"M{n}"
                )
            },
        )
        for n in range(8, count)
    ]
    patch.setattr(comparison, "METHODS", Registry([*(METHODS[name] for name in METHODS), *more]))
    return (*KNOWN, *(one.name for one in more))[:count]


def tuning_of(rate: float, number: int) -> dict[str, Any]:
    """Return the tuning part of a record: six trials, one of them failed."""
    rates = [rate, rate / 10, rate / 3, rate * 3, rate * 10, rate * 5]
    values = [0.70 + 0.01 * (number % 5), 0.61, 0.68, 0.75, 0.55, None]
    trials = [
        {"settings": {"learning_rate": one}, "selection": value}
        for one, value in zip(rates, values, strict=True)
    ]
    return {
        "trials": trials,
        "chosen": {"learning_rate": rate * 3},
        "select_by": "accuracy",
        "epochs": 1,
        "grid": {"learning_rate": rates},
    }


def record_of(
    method: str, number: int, seed: int, classes: Sequence[str], **changes: Any
) -> tuple[Record, Any]:
    """Return the record of a finished run with all metrics, and its predictions."""
    labels = np.tile(range(len(classes)), 500 // len(classes))
    right = 0.9 - 0.011 * (number * 7 % 13) - 0.004 * seed
    made = (
        make_predictions(right, 10 * number + seed)
        if len(classes) == 2
        else _answers_over_classes(right, labels, number + seed)
    )
    quality = TASK.evaluate(made, tuple(classes)).plain()
    memory = {
        f"{part}_bytes": float(2**20 * (20 + 35 * index * (number % 4 + 1)))
        for index, part in enumerate(MEMORY_PARTS)
    }
    seconds = {f"{phase}_seconds": 0.4 + 0.3 * index for index, phase in enumerate(PHASES)}
    seconds["train_seconds"] = 12.0 + 3 * (number % 9) + seed
    own = 22_000_000 if number == 0 else 0 if number == 1 else 9_216 * number
    metrics = {
        "accuracy": quality["accuracy"],
        "macro_f1": quality["macro_f1"],
        "samples_per_second": 80.0,
        "trainable_parameters": own + 148_610,
        "method_parameters": own,
        "head_parameters": 148_610,
        "trainable_share": 0.01,
        "peak_memory_bytes": sum(memory.values()) + 2**20 * seed,
        **memory,
        **seconds,
    }
    epochs = tuple(
        {
            "epoch": epoch,
            "train_loss": 0.7 / epoch + 0.02 * seed,
            "validation_loss": 0.6 / epoch**0.5 + 0.01 * number,
            "validation_accuracy": right - 0.2 / epoch + 0.01 * seed,
            "selection": right - 0.21 / epoch,
        }
        for epoch in range(1, 5)
    )
    evaluated = {name: quality[name] for name in ("per_class", "confusion")}
    template = _template()
    fields: dict[str, Any] = {
        "spec": unregistered(method, replace(template.spec, seed=seed)),
        "fingerprint": f"{method}{seed}",
        "metrics": metrics,
        "epochs": epochs,
        "quality": evaluated,
    }
    return replace(template, **{**fields, "tuning": tuning_of(1e-3, number), **changes}), made


@functools.cache
def _template() -> Record:
    return make_record("lora")


def _answers_over_classes(right: float, labels: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    answers = np.where(
        rng.random(len(labels)) < right, labels, rng.integers(0, labels.max() + 1, len(labels))
    )
    return ClassPredictions(np.eye(labels.max() + 1, dtype=np.float32)[answers], labels)


def comparison_of(
    methods: Sequence[str],
    seeds: int = 3,
    classes: Sequence[str] = ("negative", "positive"),
    **changes: Any,
) -> Comparison:
    """Return a comparison of finished runs of these methods."""
    made = [
        record_of(method, number, seed, classes, **changes)
        for number, method in enumerate(methods)
        for seed in range(seeds)
    ]
    return Comparison(
        tuple(record for record, _ in made),
        predictions={record.fingerprint: predictions for record, predictions in made},
    )


def with_mishaps(comparison: Comparison, skipped: str, failed: str) -> Comparison:
    """Return the comparison with one method skipped and seed 1 of another failed."""
    records = []
    for record in comparison.records:
        lost = (
            "skipped"
            if record.method_name == skipped
            else "failed"
            if (record.method_name, record.seed) == (failed, 1)
            else None
        )
        bare: dict[str, Any] = {"metrics": {}, "epochs": (), "quality": None, "tuning": None}
        records.append(replace(record, **bare, status=lost, message="why") if lost else record)
    return Comparison(tuple(records), predictions=comparison.predictions)
