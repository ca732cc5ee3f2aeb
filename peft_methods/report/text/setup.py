"""The setup of a comparison as text: model, data, budget, seeds and device."""

from __future__ import annotations

from typing import Any

from peft_methods.analysis.comparison import Comparison
from peft_methods.runs.record import Record


def setup_line(comparison: Comparison, recipe: str) -> str:
    """Describe the setup in one line: model, data, budget, seeds, device."""
    records = [r for r in comparison.records if r.recipe_name == recipe and not r.is_source]
    spec = records[0].spec["recipe"]
    data = spec["data"]
    finished = next((r for r in records if r.status == "ok"), None)
    device = device_text(finished) if finished else records[0].spec["device"]
    seeds = sorted({r.seed for r in records})
    weights = " (random weights)" if spec["model"]["weights"] == "random" else ""
    texts = " (random tokens)" if finished and finished.data.get("random") else ""
    sizes = (
        {
            split: sum(finished.data["class_counts"][split])
            for split in ("train", "validation", "test")
        }
        if finished
        else data
    )
    deterministic = ", deterministic" * bool(records[0].spec.get("deterministic"))
    return (
        f"{recipe}: {spec['model']['source']}{weights} on {data['source']}{texts}, "
        f"{sizes['train']} train / {sizes['validation']} validation / {sizes['test']} test, "
        f"{budget_text(spec)}{deterministic}; seeds {', '.join(map(str, seeds))}; {device}"
    )


def budget_text(recipe: dict[str, Any]) -> str:
    """Describe the budget. Options at their default are omitted."""
    budget = recipe["budget"]
    patience, batches = budget.get("early_stopping"), budget.get("gradient_accumulation", 1)
    parts = [
        f"up to {budget['epochs']} epochs (early stopping after {patience} without improvement)"
        if patience
        else f"{budget['epochs']} epochs",
        f"batch {budget['batch_size']}" + (f" × {batches}" if batches > 1 else ""),
        f"max length {recipe['data']['max_length']}",
        budget["precision"],
    ]
    parts += ["gradient checkpointing"] * bool(budget.get("gradient_checkpointing"))
    parts += ["fixed padding"] * (budget.get("padding") == "fixed")
    return ", ".join(parts)


def device_text(record: Record) -> str:
    """Format the device's name; for a CPU with the number of threads."""
    environment = record.environment
    cores = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']}{cores}"
