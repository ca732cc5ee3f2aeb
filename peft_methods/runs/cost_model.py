"""Estimates of how long runs take: from a timed forward pass, corrected by finished runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from peft_methods.data.facts import SPLITS
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.spec import RunSpec


def expected_seconds(run: RunSpec, preparation: PreparedRecipe) -> float:
    """Estimate a run's seconds: start-up, training and evaluation.

    Training costs the method's number of forward passes per row, evaluation one. The rows are
    those that exist, since a recipe's sizes may be upper limits. The data of a prerequisite run is
    not read before: its sizes are the requested ones. Gradient checkpointing computes each layer's
    forward pass twice; features that are stored are computed in one epoch. All epochs are counted,
    although early stopping may end sooner.
    """
    rows = {split: sum(counts) for split, counts in preparation.data["class_counts"].items()}
    if run.role == "prerequisite":
        sizes = {split: getattr(run.recipe.data, split) for split in SPLITS}
        rows |= {split: size for split, size in sizes.items() if size != "all"}
    budget = run.recipe.budget
    info = run.method.info
    passes = info.cost_in_forward_passes + budget.gradient_checkpointing
    if info.stores_features:
        passes = info.cost_in_forward_passes / budget.epochs
    forwards = budget.epochs * (rows["train"] * passes + rows["validation"]) + rows["test"]
    return preparation.start_seconds + forwards * preparation.forward_seconds


def total_seconds(
    runs: Iterable[RunSpec],
    preparations: Mapping[str, PreparedRecipe],
    workers: int,
    done: Collection[str] = (),
) -> float:
    """Estimate the seconds for all runs on all workers, counting each prerequisite once.

    At least the time of the longest run, after the longest of its prerequisites. `preparations` are
    by recipe name. `done` are the keys of runs that have a record already.
    """
    expected: dict[str, float] = dict.fromkeys(done, 0.0)
    longest = 0.0
    for run in runs:
        for one in (*run.prerequisites, run):
            if one.key not in expected:
                expected[one.key] = expected_seconds(one, preparations[run.recipe.name])
        before = max((expected[one.key] for one in run.prerequisites), default=0.0)
        longest = max(longest, expected[run.key] + before)
    return max(longest, sum(expected.values()) / workers)
