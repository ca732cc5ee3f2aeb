"""Result folders of any size: real runs of the recipe `embedded` with random metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.environment import PACKAGES
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.predictions import encode_predictions
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.store import PREDICTIONS
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.training.evidence import Evidence

LABELS = ("negative", "positive")
COUNTS = {"train": (200, 200), "validation": (75, 75), "test": (250, 250)}


def fill(folder: Path, recipes: int, seeds: int) -> int:
    """Write a record with predictions for each recipe, method and seed. Return their number."""
    folder.mkdir(parents=True)
    labels = np.repeat(np.arange(2), COUNTS["test"])
    count = 0
    for count, (run, rng) in enumerate(_cells(recipes, seeds), 1):
        correct = rng.random(len(labels)) < 0.7 + 0.1 * (len(run.method.name) % 3) / 3
        logits = (
            np.eye(2, dtype=np.float32)[np.where(correct, labels, 1 - labels)]
            + rng.random((len(labels), 2)).astype(np.float32) / 2
        )
        predictions = ClassPredictions(logits, labels)
        record = _record(run, predictions, rng, float(1.7e9 + count))
        content = encode_predictions(predictions)
        files = {PREDICTIONS: hashlib.sha256(content).hexdigest()}
        record = replace(record, files=files)
        (folder / f"{record.fingerprint}.json").write_text(
            json.dumps(record.to_json(), indent=1, sort_keys=True), encoding="utf-8"
        )
        (folder / f"{record.fingerprint}{PREDICTIONS}").write_bytes(content)
    return count


def _cells(recipes: int, seeds: int) -> Iterator[tuple[RunSpec, np.random.Generator]]:
    for number in range(recipes):
        recipe = replace(
            load_recipe("embedded", [f"budget.seeds={seeds}"]), name=f"recipe{number:02}"
        )
        for method in chosen_methods(recipe, None):
            for run in run_specs(recipe, method, "cpu"):
                yield run, np.random.default_rng([number, len(method.name), run.seed])


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


def _record(
    run: RunSpec, predictions: ClassPredictions, rng: np.random.Generator, finished: float
) -> Record:
    quality = _quality(predictions)
    metrics: dict[str, Any] = {name: float(rng.random()) for name in METRICS}
    metrics |= {name: quality[name] for name in metrics if name in quality}
    metrics |= {name: 1e8 * metrics[name] for name in metrics if name.endswith("_bytes")}
    metrics |= {
        "busy_share": 0.99,
        "method_parameters": 73_728,
        "head_parameters": 770,
        "total_parameters": 22_714_000,
    }
    epochs = tuple(
        {
            "epoch": float(epoch),
            "train_loss": 1 / epoch,
            "validation_loss": 1.1 / epoch,
            "validation_accuracy": 0.7,
            "selection": 0.7,
        }
        for epoch in (1, 2)
    )
    return Record(
        spec=run,
        status="ok",
        fingerprint=run.key * 2,
        metrics=metrics,
        epochs=epochs,
        best_epoch=2,
        quality=quality,
        evidence=Evidence(expected_trainable=73_728, moved_checked=24, frozen_checked=100),
        data={
            "majority": 0.5,
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
        finished=finished,
    )
