"""V31x: scores of an audited table that were not measured as it says, or show nothing learnt."""

from __future__ import annotations

import re
from collections.abc import Iterator

from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.majorities import majority_of
from peft_methods.analysis.checks.rounded_count import decimals_of
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_floor, rule

SCATTER = 0.02  # width of the range in which validation and test accuracy differ by chance
CHANCE = 1e-3  # that this many rows agree by chance
NO_ACCURACY = re.compile(r"f1|mcc|matthews|corr|pearson|spearman|rouge|bleu|exact|\bem\b|auc")
LEAST_ROWS = 10  # of a test set whose score of zero says something
NEARLY_ZERO, MANY_TIMES = 0.005, 100.0
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
    decimals = min(max(map(decimals_of, values)) for values in zip(*known, strict=True))
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


@rule("V308", "warning", "table", needs=("accuracy", "scores"))
def scores_zero(group: Group) -> Iterator[tuple[str, str, str]]:
    """A score of zero: nothing was learnt, or the answers' format was wrong.

    It starts at ten test rows, or where their number is unknown: a guess is right now and then.
    An accuracy below 0.5 % counts as zero where another row has a hundred times as much. Seeds are
    looked at one by one, too: their mean hides one that failed.
    """
    best = max((row.accuracy or 0.0 for row in group.methods), default=0.0)
    for subject, row in group.methods_and_seeds():
        if row.test_rows is not None and row.test_rows < LEAST_ROWS:
            continue
        names = [name for name, score in row.scores.items() if not score and _is_better_high(name)]
        if row.accuracy is not None and "accuracy" not in names:
            is_none = row.accuracy == 0 or row.accuracy < min(NEARLY_ZERO, best / MANY_TIMES)
            names += ["accuracy"] if is_none else []
        if names and not is_floor(row.method):
            of = f" of {row.test_rows:,.0f} test rows" if row.test_rows else ""
            worst = row.accuracy if names == ["accuracy"] and row.accuracy else 0.0
            yield (
                subject,
                f"{', '.join(names)} {f'{worst:.4f}' if worst else '0.0'}{of}",
                "read some answers: either training failed (rate, targets), or the answers are "
                "not in the form that the evaluation looks for",
            )


def _is_better_high(name: str) -> bool:
    return LOWER_IS_BETTER.search(name.casefold()) is None


@rule(
    "V309",
    "warning",
    "table",
    needs=("accuracy data", "accuracy task", "accuracy named_data", "scores"),
)
def accuracy_of_majority(group: Group) -> Iterator[tuple[str, str, str]]:
    """An accuracy is that of the most frequent class of a well-known data set: nothing was learnt.

    It starts where three decimals or more agree with the share of that class in a public split.
    Where no column names the data, the row's name does, or the table's title or caption. Methods
    that train the head alone are exempt.
    """
    for subject, row in group.methods_and_seeds():
        if is_floor(row.method) or row.majority is not None:
            continue
        given = {f"{row.data or row.named_data} {row.task or ''}": row.accuracy}
        given |= {
            name: score
            for name, score in row.scores.items()
            if NO_ACCURACY.search(name.casefold()) is None
        }
        for data, accuracy in given.items():
            known = None if accuracy is None else majority_of(data, accuracy)
            if known is not None:
                yield (
                    subject,
                    f"accuracy {accuracy:.4g} on {known.data}, that of predicting its most "
                    f"frequent class for all rows ({known.rows:,} of {known.of:,} of its "
                    f"{known.split} split; {known.source})",
                    "look at the predictions: if they are one class, raise or lower the learning "
                    "rate, and report several seeds",
                )
