"""The setup of a comparison as text: model, data, budget, seeds and device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from peft_methods.analysis.comparison import Comparison
from peft_methods.recipes.schema import Recipe
from peft_methods.report.text.devices import devices_text
from peft_methods.tasks.registry import task_of
from peft_methods.training.registry import engine_of
from peft_methods.utils.words import counted, seeds_of

BATCHES = {
    "fixed": "fixed padding",
    "packed": "packed batches",
    "padded": "padded batches",
    "packed by the engine": "packed batches of similar lengths",
    "both": "batches of similar lengths, padded or packed",
}


def setup_line(comparison: Comparison, recipe: str) -> str:
    """Describe the setup in one line: model, data, budget, seeds, device."""
    records = [r for r in comparison.records if r.recipe_name == recipe and r.role == "main"]
    spec = records[0].spec
    data = spec.recipe.data
    done = [r for r in records if r.status == "ok"]
    finished = done[0] if done else None
    device = devices_text(done) if done else spec.device
    seeds = {r.seed for r in records}
    weights = "" if spec.recipe.has_quality else " (random weights)"
    texts = " (random tokens)" if finished and finished.data.get("random") else ""
    sizes = (
        {
            split: sum(finished.data["class_counts"][split])
            for split in ("train", "validation", "test")
        }
        if finished
        else {"train": data.train, "validation": data.validation, "test": data.test}
    )
    engines = {record.spec.engine for record in records}
    deterministic = ", deterministic" * spec.deterministic
    return (
        f"{recipe}: {spec.recipe.model.source}{weights} on {data.source}{texts}, "
        f"{sizes['train']} train / {sizes['validation']} validation / {sizes['test']} test, "
        f"{budget_text(spec.recipe, engines)}{deterministic}; {seeds_of(seeds)}; {device}"
    )


def budget_text(recipe: Recipe, engines: Iterable[str]) -> str:
    """Describe the budget. Options at their default are omitted. `engines` have trained."""
    budget = recipe.budget
    patience, batches = budget.early_stopping, budget.gradient_accumulation
    parts = [
        f"up to {counted(budget.epochs, 'epoch')} "
        f"(early stopping after {patience} without improvement)"
        if patience
        else counted(budget.epochs, "epoch"),
        f"batch {budget.batch_size}" + (f" × {batches}" if batches > 1 else ""),
        f"max length {recipe.data.max_length}",
        budget.precision,
    ]
    parts += ["gradient checkpointing"] * budget.gradient_checkpointing
    parts += [f"each run over {budget.gpus} processes ({budget.strategy})"] * (budget.gpus > 1)
    if (kind := kind_of_batches(recipe, engines)) is not None:
        parts.append(BATCHES[kind])
    return ", ".join(parts)


def kind_of_batches(
    recipe: Recipe, engines: Iterable[str]
) -> Literal["fixed", "packed", "padded", "packed by the engine", "both"] | None:
    """Return how batches are filled: the default only where they could be packed."""
    if (padding := recipe.budget.padding) != "dynamic":
        return padding
    if not task_of(recipe).packs:
        return None
    packs = {engine_of(name).packs_decoders for name in engines}
    if len(packs) == 2:
        return "both"
    return "packed by the engine" if True in packs else "padded"
