"""V31x: scores of an audited table that were not measured as it says, or show nothing learnt."""

from __future__ import annotations

import re
from collections.abc import Iterator

from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_floor, rule

SCATTER = 0.02  # width of the range in which validation and test accuracy differ by chance
CHANCE = 1e-3  # that this many rows agree by chance
LEAST_ROWS = 10  # of a test set whose score of zero says something
LOWER_IS_BETTER = re.compile(r"loss|perplexity|ppl|forget|error|\bwer\b|\bcer\b|mse|mae|drift|gap")


@rule(
    "V307",
    "warning",
    "table",
    needs=("accuracy validation_accuracies", "accuracy validation_accuracy"),
    rows=2,
)
def test_is_validation(group: Group) -> Iterator[tuple[str, str, str]]:
    """The test accuracy of every row is the best of its own validation log.

    Two sets differ by about a point by chance. It starts where the agreement of all rows has a
    chance below 1 in 1,000: two rows with four digits, three with three, ten with two. Of two
    columns with different digits those of the coarser one count.
    """
    pairs = [(row.accuracy, best) for row in group.rows if (best := _best(row)) is not None]
    known = [(test, best) for test, best in pairs if test is not None]
    if not known:
        return
    decimals = min(max(map(_decimals, values)) for values in zip(*known, strict=True))
    if any(round(test, decimals) != round(best, decimals) for test, best in known):
        return
    step = 10.0**-decimals
    if min(1.0, step / SCATTER) ** len(known) < CHANCE:
        names = [row.name for row in group.rows if row.accuracy is not None and _best(row)]
        yield (
            ", ".join(dict.fromkeys(names)),
            f"the test accuracy is the best validation accuracy in all {len(known)} rows",
            "choose the epoch on validation rows and report the accuracy on other, untouched rows",
        )


def _best(row: ResultRow) -> float | None:
    return max(row.validation_accuracies, default=row.validation_accuracy)


def _decimals(share: float) -> int:
    """Return the decimals of a share as it was written: 0.9534, or 95.34 %, has four."""
    return len(f"{share:.6f}".rstrip("0").partition(".")[2])


@rule("V308", "warning", "table", needs=("accuracy", "scores"))
def scores_zero(group: Group) -> Iterator[tuple[str, str, str]]:
    """A score of exactly zero: nothing was learnt, or the answers' format was wrong.

    It starts at ten test rows, or where their number is unknown: a guess is right now and then.
    """
    for row in group.methods:
        if row.test_rows is not None and row.test_rows < LEAST_ROWS:
            continue
        names = [name for name, score in row.scores.items() if not score and _is_better_high(name)]
        names += ["accuracy"] if row.accuracy == 0 and "accuracy" not in names else []
        if names and not is_floor(row.method):
            of = f" of {row.test_rows:,.0f} test rows" if row.test_rows else ""
            yield (
                row.name,
                f"{', '.join(names)} 0.0{of}",
                "read some answers: either training failed (rate, targets), or the answers are "
                "not in the form that the evaluation looks for",
            )


def _is_better_high(name: str) -> bool:
    return LOWER_IS_BETTER.search(name.casefold()) is None
