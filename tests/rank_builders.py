"""Runs over several processes on the CPU, for tests: the ranks exchange data by gloo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.record import Record
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

ONE, DDP, FSDP = (1, None), (2, "ddp"), (2, "fsdp")


def over(recipe: Recipe, gpus: int, strategy: str | None) -> Recipe:
    """Return the recipe for a number of processes."""
    return replace(recipe, budget=replace(recipe.budget, gpus=gpus, strategy=strategy))


def run_all(
    runs: Sequence[RunSpec],
    folder: Path,
    *,
    checkpoint: bool = False,
    save_models: Path | None = None,
    retries: int = 0,
) -> list[Record]:
    """Run in workers, with one thread a process as no more is the same on any machine."""
    store = Store(folder)
    store.prepare()
    scheduler = new_scheduler(
        store,
        "cpu",
        workers=1,
        devices=(DeviceSet((), 1),),
        checkpoint=checkpoint,
        save_models=save_models,
        retries=retries,
    )
    try:
        scheduler.submit(runs)
        return scheduler.wait(runs)
    finally:
        scheduler.close()


def losses(record: Record) -> list[float | None]:
    """Return the mean loss of every epoch."""
    return [epoch["train_loss"] for epoch in record.epochs]
