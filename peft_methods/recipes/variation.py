"""What a seed varies: the random parts of a training, and the seed of each part's random stream.

The parts are those of Bouthillier et al., "Accounting for variance in machine learning benchmarks"
(2021), as far as a run has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.utils.errors import OptionError, unknown

PARTS: Mapping[str, str] = {
    "initialisation": "the initial weights of the head and of the method",
    "data_order": "the order of the training rows",
    "dropout": "the dropout masks, and whatever else a training step draws",
    "training_subset": "which of the rows left over are trained on",
    "split": "which rows are for validation; training rows are among the others",
}
USUAL = ("initialisation", "data_order", "dropout")  # the default of budget.vary
ROWS = {"split": "validation", "training_subset": "train"}  # the split whose rows a part draws
FIXED_SEED = 0  # of the parts that do not vary


def check_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts in the order of `PARTS`.

    Raises `OptionError` for an unknown part, with the nearest name, and for one named twice.
    """
    for name in names:
        if name not in PARTS:
            raise OptionError(
                f"budget.vary: {unknown('random part', name, PARTS)}", setting="budget.vary"
            )
    if len(set(names)) < len(names):
        raise OptionError(
            f"budget.vary = {list(names)} names a part twice. Name each part once.",
            setting="budget.vary",
        )
    return tuple(part for part in PARTS if part in names)


def seed_of(part: str, seed: int, vary: Sequence[str]) -> int:
    """Return the seed of a part's random stream: the run's own if the part varies, else 0."""
    assert part in PARTS, part
    return seed if part in vary else FIXED_SEED


def row_seeds(seed: int, vary: Sequence[str]) -> dict[str, int]:
    """Return the run's seed for each split whose rows it draws, by split.

    The rows of other splits, and the test rows in every case, are those of `data.seed`.
    """
    return {split: seed for part, split in ROWS.items() if part in vary}
