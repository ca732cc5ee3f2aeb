"""Estimates of how long runs take: from a timed forward pass, corrected by finished runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.spec import RunSpec


def expected_seconds(run: RunSpec, preparation: PreparedRecipe) -> float:
    """Estimate a run's seconds: start-up, training and evaluation.

    Training costs the method's number of forward passes per row, evaluation one. Sizes of 'all' are
    taken from the data. Gradient checkpointing computes each layer's forward pass twice. All epochs
    are counted, although early stopping may end sooner.
    """
    counts = preparation.data["class_counts"]
    sizes = {split: getattr(run.recipe.data, split) for split in ("train", "validation", "test")}
    rows = {split: sum(counts[split]) if size == "all" else size for split, size in sizes.items()}
    budget = run.recipe.budget
    passes = run.method.info.cost_in_forward_passes + budget.gradient_checkpointing
    forwards = budget.epochs * (rows["train"] * passes + rows["validation"]) + rows["test"]
    return preparation.start_seconds + forwards * preparation.forward_seconds


def total_seconds(
    runs: Iterable[RunSpec],
    preparations: Mapping[str, PreparedRecipe],
    workers: int,
    done: Collection[str] = (),
) -> float:
    """Estimate the seconds for all runs on all workers, counting each prerequisite once.

    `preparations` are by recipe name. `done` are the keys of runs that have a record already.
    """
    total, seen = 0.0, set(done)
    for run in runs:
        for one in (*run.prerequisites, run):
            if one.key not in seen:
                seen.add(one.key)
                total += expected_seconds(one, preparations[run.recipe.name])
    return total / workers
