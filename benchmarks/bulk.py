"""Result folders of any size: runs of the recipe `embedded` with random metrics.

Most files differ in a few values only, so that 100,000 records take minutes to write, not hours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.environment import PACKAGES
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.predictions import encode_predictions
from peft_methods.runs.record import Record
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import PREDICTIONS
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.training.evidence import Evidence

LABELS = ("negative", "positive")
COUNTS = {"train": (200, 200), "validation": (75, 75), "test": (250, 250)}
FAILED_EVERY = 40  # runs
TWO_VERSIONS_EVERY = 10  # recipes: half of their runs are of another version of torch

Values = dict[str, Any]


def fill(folder: Path, recipes: int, seeds: int, models: int = 1) -> int:
    """Write a record with predictions for each recipe, model, method and seed; return their number.

    One run in `FAILED_EVERY` has failed, and one recipe in `TWO_VERSIONS_EVERY` has two sections.
    """
    folder.mkdir(parents=True)
    count = 0
    for number in range(recipes):
        for recipe in _recipes(number, models):
            for values in _records(recipe, number, seeds):
                count += 1
                _write(folder, values, count)
    return count


def _recipes(number: int, models: int) -> Iterator[Recipe]:
    """Return a recipe with each of the models, as a session with several models names them."""
    recipe = replace(load_recipe("embedded"), name=f"recipe{number:03}")
    for model in range(models):
        source = replace(recipe.model, source=f"models/model{model}")
        named = replace(recipe, name=f"{recipe.name}.model{model}", models_of=recipe.name)
        yield recipe if models == 1 else replace(named, model=source)


def _records(recipe: Recipe, number: int, seeds: int) -> Iterator[Values]:
    for method in chosen_methods(recipe, None):
        whole = _record(replace(recipe, budget=replace(recipe.budget, seeds=1)), method.name)
        rng = np.random.default_rng([number, len(method.name)])
        for seed in range(seeds):
            yield _of_seed(whole, seed, rng, is_newer=not number % TWO_VERSIONS_EVERY and seed % 2)


def _record(recipe: Recipe, method: str) -> Values:
    """Return a sound record's JSON values, with what all seeds have in common."""
    run = run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu")[0]
    record = Record(
        spec=run,
        status="ok",
        fingerprint="none",
        best_epoch=2,
        evidence=Evidence(expected_trainable=73_728, moved_checked=24, frozen_checked=100),
        data={
            "majority": 0.5,
            "trivial_baseline": {"accuracy": 0.5},
            "fingerprint": "f" * 64,
            "class_counts": COUNTS,
            "label_names": LABELS,
            "removed": {"repeated": 3},
        },
        environment={
            "device": "cpu",
            "device_name": "a processor",
            "threads": 1,
            "memory_kind": "resident set without libraries, above its level before the model",
            "packages": dict.fromkeys(PACKAGES, "1.0"),
            "python": "3.11.2",
            "weights_sha256": "4bit" if run.method.info.quantization else "whole",
        },
    )
    return record.to_json()


def _of_seed(whole: Values, seed: int, rng: np.random.Generator, *, is_newer: bool) -> Values:
    spec, environment = whole["spec"], whole["environment"]
    quality, _ = _results(spec["method"]["name"], seed)
    metrics: Values = dict(zip(METRICS, rng.random(len(METRICS)).tolist(), strict=True))
    metrics |= {name: quality[name] for name in metrics if name in quality}
    metrics |= {name: 1e8 * metrics[name] for name in metrics if name.endswith("_bytes")}
    metrics |= {
        "busy_share": 0.99,
        "method_parameters": 73_728,
        "head_parameters": 770,
        "total_parameters": 22_714_000,
    }
    epochs = [
        {
            "epoch": epoch,
            "train_loss": metrics["train_seconds"] / epoch,
            "validation_loss": 1.1 / epoch,
            "validation_accuracy": 0.7,
            "selection": 0.7,
        }
        for epoch in (1, 2)
    ]
    packages = environment["packages"] | ({"torch": "1.1"} if is_newer else {})
    own = {"spec": {**spec, "seed": seed}, "environment": {**environment, "packages": packages}}
    return {**whole, **own, "metrics": metrics, "epochs": epochs, "quality": quality}


@cache
def _results(method: str, seed: int) -> tuple[Values, bytes]:
    """Return the quality and the file of a run's predictions, the same for every recipe."""
    rng, labels = (
        np.random.default_rng([len(method), seed]),
        np.repeat(np.arange(2), COUNTS["test"]),
    )
    correct = rng.random(len(labels)) < 0.7 + 0.1 * (len(method) % 3) / 3
    logits = (
        np.eye(2, dtype=np.float32)[np.where(correct, labels, 1 - labels)]
        + rng.random((len(labels), 2)).astype(np.float32) / 2
    )
    predictions = ClassPredictions(logits, labels)
    return _quality(predictions), encode_predictions(predictions)


def _quality(predictions: ClassPredictions) -> dict[str, Any]:
    """Return the quality of text classification for two classes, about twenty times as fast."""
    confusion = np.bincount(2 * predictions.labels + predictions.predicted, minlength=4).reshape(
        2, 2
    )
    precision, recall = np.diag(confusion) / confusion.sum(0), np.diag(confusion) / confusion.sum(1)
    scores = {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "support": confusion.sum(1),
    }
    means = {
        f"{kind}_{name}": float(scores[name].mean())
        for kind in ("macro", "weighted")
        for name in ("precision", "recall", "f1")
    }
    per_class = {
        label: {name: float(values[i]) for name, values in scores.items()}
        for i, label in enumerate(LABELS)
    }
    accuracy = float(np.diag(confusion).sum() / confusion.sum())
    return {"accuracy": accuracy, **means, "per_class": per_class, "confusion": confusion.tolist()}


def _write(folder: Path, values: Values, count: int) -> None:
    """Write one record and its predictions; every so many runs have failed and have none."""
    spec = values["spec"]
    name = f"{spec['recipe']['name']} {spec['method']['name']} {spec['seed']}"
    fingerprint = hashlib.sha256(name.encode()).hexdigest()[:32]
    own: Values = {"fingerprint": fingerprint, "finished": 1.7e9 + count}
    if count % FAILED_EVERY:
        _, content = _results(spec["method"]["name"], spec["seed"])
        (folder / f"{fingerprint}{PREDICTIONS}").write_bytes(content)
        own["files"] = {PREDICTIONS: hashlib.sha256(content).hexdigest()}
    else:
        own |= {"status": "oom", "message": "out of memory", "metrics": {}, "epochs": []}
        own |= {"quality": None, "best_epoch": None}
    text = json.dumps({**values, **own}, indent=1, sort_keys=True)
    (folder / f"{fingerprint}.json").write_text(text, encoding="utf-8")
