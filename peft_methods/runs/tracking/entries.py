"""Log entries for trackers: of an epoch, and of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_methods.runs.record import Record
from peft_methods.runs.tracking.tracker_process import Entry
from peft_methods.tasks.registry import task_of


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten {'method': {'rank': 8}} to {'method.rank': 8}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            flattened(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return flat


def epoch_entry(news: Mapping[str, Any]) -> Entry:
    """Build the entry for an epoch, with the Trainer's names."""
    values = {
        "loss": news["train_loss"],
        "eval_loss": news["validation_loss"],
        "accuracy": news.get("train_accuracy"),
        "eval_accuracy": news["validation_accuracy"],
        "eval_selection": news["selection"],
        **{
            name: news.get(name)
            for name in ("learning_rate", "samples_per_second", "peak_memory_bytes")
        },
    }
    return Entry(
        without_missing(values), int(news.get("step", news["epoch"])), float(news["epoch"])
    )


def final_entry(record: Record, step: int) -> Entry:
    """Build the entry for a record: its metrics and status, at the run's last step."""
    tested = {metric.name for metric in task_of(record.spec.recipe).metrics}
    metrics = {
        f"test_{name}" if name in tested else name: value for name, value in record.metrics.items()
    }
    status = {"status": record.status, "message": record.message or None}
    return Entry(without_missing(metrics | status), step, float(len(record.epochs)))


def without_missing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
