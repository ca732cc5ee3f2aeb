"""How long a cell may take: from a timed forward pass, corrected by the cells that have ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from peft_methods.cells import Cell, Preparation


def expected_seconds(cell: Cell, preparation: Preparation) -> float:
    """Start-up, training at the method's passes a row, evaluation at one. Sizes of 'all' are taken from the data.

    Checkpointing computes each layer's forward pass twice. All epochs are counted: early stopping only shortens it.
    """
    counts = preparation.data["class_counts"]
    sizes = {split: getattr(cell.recipe.data, split) for split in ("train", "validation", "test")}
    rows = {split: sum(counts[split]) if size == "all" else size for split, size in sizes.items()}
    budget = cell.recipe.budget
    passes = cell.method.passes + budget.gradient_checkpointing
    forwards = budget.epochs * (rows["train"] * passes + rows["validation"]) + rows["test"]
    return preparation.start_seconds + forwards * preparation.forward_seconds


def total_seconds(cells: Iterable[Cell], preparations: Mapping[str, Preparation], workers: int, done: Collection[str] = ()) -> float:
    """The whole job over its workers, each stage once. `preparations` are by recipe name, `done` the keys of what is there already."""
    total, seen = 0.0, set(done)
    for cell in cells:
        for one in (*cell.stages, cell):
            if one.key not in seen:
                seen.add(one.key)
                total += expected_seconds(one, preparations[cell.recipe.name])
    return total / workers


def in_words(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
