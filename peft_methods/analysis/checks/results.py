"""V3xx: mistakes in the results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_floor, rule
from peft_methods.analysis.margin import margin_in

CERTAINTY = 1.96  # standard errors to each side: 95 %
# Smallest and largest rounding error allowed: tables round more than logs do, and 0.9 more
# likely means 0.90 than 0.95.
ROUNDING = 0.0005, 0.005
GAP = 0.10  # in accuracy
RAISE = "raise the learning rate or the budget"
LOWER = ", or lower expect.margin_over_majority if the task allows no more"
LOSS_GAP = 0.5  # nats
OTHER_CODING = (
    "the test labels seem to be coded the other way (0 for 1, or names in another order): compare "
    "a few test rows with train, and use one coding in all splits"
)


@rule(
    "V301",
    "error",
    "row",
    needs=(
        "accuracy majority",
        "quality score trivial",
    ),
)
def not_above_majority(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The model is no better than a trivial predictor, such as the majority class.

    Better means: by the margin, on the test rows. For classes, the accuracy is compared with that
    of the majority class. For other tasks it is the metric that methods are compared by, and the
    task's trivial predictor: for language models the untrained model (where their loss did fall,
    V604 warns instead). head_only is exempt, and so is a recipe with
    `expect.above_majority = false`, as for small sizes of a learning curve.

    In a run, the majority class is that of train, predicted for every test row; a run that
    predicted another class for all of them learnt nothing either. In a table it is that of test.
    The margin is the recipe's `expect.margin_over_majority`; in a table it is 0.
    """
    accuracy, majority, margin = row.accuracy, row.majority, row.margin
    if is_floor(row.method) or row.may_learn_nothing:
        return
    yield from _not_above_trivial(row)
    if accuracy is None or majority is None:
        return
    if row.classes_predicted == 1 and sum(count > 0 for count in row.class_counts["test"]) > 1:
        yield (
            f"all test rows were predicted as one class, accuracy {accuracy:.3f}",
            "raise the learning rate or the budget; if the training loss rose, lower the rate",
        )
        return
    if accuracy <= majority or accuracy < majority + margin:
        wanted = f", required margin {margin:.2f}" if margin else ""
        evidence = f"accuracy {accuracy:.3f}, majority class {majority:.3f}{wanted}"
        if _is_coded_otherwise(row):
            yield evidence, OTHER_CODING
            return
        yield evidence, RAISE + (LOWER if margin else "")


def _not_above_trivial(row: ResultRow) -> Iterator[tuple[str, str]]:
    """A score other than accuracy, against the trivial predictor's."""
    metric, score, trivial = row.quality, row.score, row.trivial
    if metric is None or score is None or trivial is None or row.only_loss_improved:
        return
    gain, margin = metric.sign() * (score - trivial), margin_in(metric, row.margin, trivial)
    if gain <= 0 or gain < margin:
        wanted = f", required margin {margin:.3g}" if margin else ""
        without = "before training" if row.trivial_is_untrained else "without the texts"
        evidence = f"{metric.in_text} {score:.3f}, {without} {trivial:.3f}{wanted}"
        yield evidence, RAISE + (LOWER if row.margin else "")


def _is_coded_otherwise(row: ResultRow) -> bool:
    """Whether test labels contradict what was learnt: right on validation, worse than chance here.

    A model that learnt nothing guesses right by chance. One that is right on validation and
    reliably below chance on test has learnt labels that mean something else there.
    """
    accuracy, validation, rows = row.accuracy, row.validation_accuracy, row.test_rows
    classes = sum(count > 0 for count in row.class_counts.get("test", ()))
    if accuracy is None or validation is None or not rows or classes < 2:
        return False
    chance = 1 / classes
    error = half_width(chance, None, rows)
    return accuracy < chance - error and validation > chance + error


@rule(
    "V302",
    "error",
    "row",
    needs=(
        "train_losses",
        "validation_losses",
        "unscored",
    ),
)
def not_finite(row: ResultRow) -> Iterator[tuple[str, str]]:
    """A loss, or a logit for a test row, is not a finite number."""
    series = {"train_loss": row.train_losses, "validation_loss": row.validation_losses}
    not_finite_losses = [
        (epoch, name, loss)
        for name, losses in series.items()
        for epoch, loss in enumerate(losses, 1)
        if not math.isfinite(loss)
    ]
    evidence = [
        f"{name} of epoch {epoch} is {loss}"
        for epoch, name, loss in sorted(not_finite_losses, key=lambda one: one[:2])[:1]
    ]
    if row.unscored:
        evidence.append("its logits for the test rows are not finite, so it was not scored")
    if evidence:
        yield (
            "; ".join(evidence),
            "lower the learning rate, or replace budget.precision fp16 by bf16 or fp32",
        )


@rule("V303", "warning", "row", needs=("accuracy",))
def perfect(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The test accuracy is exactly 100 %."""
    if row.accuracy == 1.0:
        rows = f" on {row.test_rows:,.0f} rows" if row.test_rows else ""
        yield (
            f"accuracy 1.000{rows}",
            "check that the test set has several classes, and that neither its texts nor its "
            "labels are in train",
        )


@rule("V304", "warning", "row", needs=("validation_accuracy validation_accuracies",))
def not_of_its_log(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The reported validation accuracy is neither the best nor the last of its own log.

    It is not that of the chosen epoch either, which in a table may be the one of the lowest loss.
    """
    given, log = row.validation_accuracy, row.validation_accuracies
    if given is None or not log:
        return
    known = [max(log), log[-1]]
    if row.best_epoch is not None and row.best_epoch <= len(log):
        known.append(log[row.best_epoch - 1])
    if len(row.validation_losses) == len(log):
        known.append(log[row.validation_losses.index(min(row.validation_losses))])
    least, most = ROUNDING
    if min(abs(given - value) for value in known) > max(least, min(row.rounding, most)) + 1e-9:
        yield (
            f"validation accuracy {given:.4f}; the best in the log is {max(log):.4f}, "
            f"the last {log[-1]:.4f}",
            "state which epoch is reported",
        )


@rule(
    "V305",
    "warning",
    "comparison",
    evidence=(
        "… test rows give ±… points, the margin is …",
        "a lead of … points over … on … test rows, where the 95 % interval is ±…",
    ),
    needs=("accuracy test_rows",),
    rows=1,
)
def test_set_too_small(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The test set is too small for the lead of a table's best method or a recipe's margin."""
    advice = "test on more rows, or report the methods as equal"
    for row in rows:
        error = (
            half_width(row.accuracy, None, row.test_rows)
            if row.accuracy is not None and row.test_rows
            else 0.0
        )
        if 0 < row.margin < error:
            yield (
                row.name,
                f"{row.test_rows:,.0f} test rows give ±{100 * error:.1f} points, "
                f"the margin is {100 * row.margin:.1f}",
                advice,
            )
    ranked = sorted(
        (row for row in rows if row.ranked and row.accuracy is not None),
        key=lambda row: -(row.accuracy or 0.0),
    )
    alike = [lead for other in ranked[1:] if (lead := _lead_by_chance(ranked[0], other))]
    if alike:
        yield (
            ranked[0].name,
            alike[0] + (f", and likewise over {len(alike) - 1} more" if len(alike) > 1 else ""),
            advice,
        )


def half_width(a: float, b: float | None, rows: float) -> float:
    """Return half of the 95 % interval of an accuracy, or of a difference of two accuracies.

    Each accuracy is measured on `rows` rows; the two are taken as independent.
    """
    return CERTAINTY * math.sqrt((a * (1 - a) + (0.0 if b is None else b * (1 - b))) / rows)


def _lead_by_chance(best: ResultRow, other: ResultRow) -> str | None:
    """Describe a lead that may be chance. Equal accuracies have no lead."""
    if best.accuracy is None or other.accuracy is None or not best.test_rows or not other.test_rows:
        return None
    rows = min(best.test_rows, other.test_rows)
    lead, error = best.accuracy - other.accuracy, half_width(best.accuracy, other.accuracy, rows)
    return (
        f"a lead of {100 * lead:.2f} points over {other.name} on {rows:,.0f} test rows, "
        f"where the 95 % interval is ±{100 * error:.2f}"
        if 0 < lead < error
        else None
    )


@rule(
    "V306",
    "warning",
    "row",
    needs=(
        "accuracy validation_accuracy",
        "accuracy train_accuracy",
        "train_losses validation_losses best_epoch",
    ),
)
def gap_to_train(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The training or validation score is far better than the test score.

    That is by more than ten points, beyond the sampling error of the rows. A run's training
    accuracy is that of the chosen epoch, counted while it was trained.
    """
    accuracy = row.accuracy
    for name, other, rows in (
        ("training", row.train_accuracy, row.train_rows),
        ("validation", row.validation_accuracy, row.validation_rows),
    ):
        if (
            accuracy is not None
            and other is not None
            and other - accuracy > _allowed(accuracy, rows, row.test_rows)
        ):
            yield (
                f"{name} accuracy {other:.3f}, test accuracy {accuracy:.3f}",
                OTHER_CODING
                if _is_coded_otherwise(row)
                else "stop earlier, regularise, or look for leaked data",
            )
    losses = row.train_losses, row.validation_losses
    if all(losses) and row.best_epoch is not None and len(losses[0]) == len(losses[1]):
        train, validation = (one[row.best_epoch - 1] for one in losses)
        if validation - train > LOSS_GAP:
            yield (
                f"training loss {train:.3f}, validation loss {validation:.3f} in the best epoch",
                "stop earlier or regularise",
            )


def _allowed(accuracy: float, *splits: float | None) -> float:
    """Return the allowed gap: ten points and the sampling error, where the rows are known."""
    rows = [rows for rows in splits if rows]
    return GAP + (half_width(accuracy, accuracy, min(rows)) if rows else 0.0)
