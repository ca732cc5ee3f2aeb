"""V3xx: what is wrong with the results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peft_methods.validity.base import is_floor, rule
from peft_methods.validity.figures import Figures

CERTAINTY = 1.96  # standard errors to each side: 95 %
ROUNDING = (
    0.0005,
    0.005,
)  # at the least and the most: tables round more than logs do, and 0.9 is more likely 0.90 than 0.95
GAP = 0.10  # of accuracy
LOSS_GAP = 0.5  # nats


@rule("V301", "error", "row")
def not_above_majority(figures: Figures) -> Iterator[tuple[str, str]]:
    """The test accuracy is not above the majority class, in a run by the recipe's margin (the floor method exempt)."""
    accuracy, majority, margin = figures.accuracy, figures.majority, figures.margin
    if is_floor(figures.method) or accuracy is None or majority is None:
        return
    if accuracy <= majority or accuracy < majority + margin:
        wanted = f", margin wanted {margin:.2f}" if margin else ""
        yield (
            f"accuracy {accuracy:.3f}, majority class {majority:.3f}{wanted}",
            "raise the learning rate or the budget"
            + (
                ", or lower expect.margin_over_majority if that is all there is to get"
                * bool(margin)
            ),
        )


@rule("V302", "error", "row")
def not_finite(figures: Figures) -> Iterator[tuple[str, str]]:
    """A loss, or what the model gives for a test row, is not a finite number."""
    series = {"train_loss": figures.train_losses, "validation_loss": figures.validation_losses}
    spoilt = [
        (epoch, name, loss)
        for name, losses in series.items()
        for epoch, loss in enumerate(losses, 1)
        if not math.isfinite(loss)
    ]
    said = [
        f"{name} of epoch {epoch} is {loss}"
        for epoch, name, loss in sorted(spoilt, key=lambda one: one[:2])[:1]
    ]
    if figures.unjudged:
        said.append("its logits for the test rows are not finite, so they were not judged")
    if said:
        yield (
            "; ".join(said),
            "lower the learning rate, or take budget.precision=bf16 or fp32 if it is fp16",
        )


@rule("V303", "warning", "row")
def perfect(figures: Figures) -> Iterator[tuple[str, str]]:
    """The test accuracy is exactly 100 %."""
    if figures.accuracy == 1.0:
        rows = f" on {figures.test_rows:,.0f} rows" if figures.test_rows else ""
        yield (
            f"accuracy 1.000{rows}",
            "has the test set one class, is it sorted, do its texts or its labels stand in train?",
        )


@rule("V304", "warning", "row")
def not_of_its_log(figures: Figures) -> Iterator[tuple[str, str]]:
    """The validation accuracy given is neither the best nor the last of its own log.

    Nor that of the epoch chosen, which in a table may be the one of the lowest loss.
    """
    given, log = figures.validation_accuracy, figures.validation_accuracies
    if given is None or not log:
        return
    known = [max(log), log[-1]]
    if figures.best_epoch is not None and figures.best_epoch <= len(log):
        known.append(log[figures.best_epoch - 1])
    if len(figures.validation_losses) == len(log):
        known.append(log[figures.validation_losses.index(min(figures.validation_losses))])
    least, most = ROUNDING
    if min(abs(given - value) for value in known) > max(least, min(figures.rounding, most)) + 1e-9:
        yield (
            f"validation accuracy {given:.4f}, in the log {max(log):.4f} at best and {log[-1]:.4f} at last",
            "say which epoch is reported",
        )


@rule("V305", "warning", "comparison")
def test_set_too_small(rows: Sequence[Figures]) -> Iterator[tuple[str, str, str]]:
    """The test set is too small for a difference that is claimed: the lead in a table, the margin a recipe wants."""
    advice = "test on more rows, or call them equal"
    for row in rows:
        error = (
            half_width(row.accuracy, None, row.test_rows)
            if row.accuracy is not None and row.test_rows
            else 0.0
        )
        if 0 < row.margin < error:
            yield (
                row.name,
                f"{row.test_rows:,.0f} test rows leave ±{100 * error:.1f} points, the margin is {100 * row.margin:.1f}",
                advice,
            )
    ranked = sorted(
        (row for row in rows if row.ranked and row.accuracy is not None),
        key=lambda row: -(row.accuracy or 0.0),
    )
    alike = [said for other in ranked[1:] if (said := _lead_by_chance(ranked[0], other))]
    if alike:
        yield (
            ranked[0].name,
            alike[0] + (f", and so over {len(alike) - 1} more" if len(alike) > 1 else ""),
            advice,
        )


def half_width(a: float, b: float | None, rows: float) -> float:
    """Half of the 95 % interval of an accuracy, or of the difference of two on so many rows each, taken as independent."""
    return CERTAINTY * math.sqrt((a * (1 - a) + (0.0 if b is None else b * (1 - b))) / rows)


def _lead_by_chance(best: Figures, other: Figures) -> str | None:
    """What is to be said of a lead that may be chance. Equal figures claim none."""
    if best.accuracy is None or other.accuracy is None or not best.test_rows or not other.test_rows:
        return None
    rows = min(best.test_rows, other.test_rows)
    lead, error = best.accuracy - other.accuracy, half_width(best.accuracy, other.accuracy, rows)
    return (
        f"a lead of {100 * lead:.2f} points over {other.name} on {rows:,.0f} test rows, ±{100 * error:.2f}"
        if 0 < lead < error
        else None
    )


@rule("V306", "warning", "row")
def gap_to_train(figures: Figures) -> Iterator[tuple[str, str]]:
    """What was trained on is known far better than what was not."""
    accuracy = figures.accuracy
    for name, other in (
        ("training", figures.train_accuracy),
        ("validation", figures.validation_accuracy),
    ):
        if (
            accuracy is not None
            and other is not None
            and other - accuracy > _allowed(accuracy, figures)
        ):
            yield (
                f"{name} accuracy {other:.3f}, test accuracy {accuracy:.3f}",
                "stop earlier, regularise, or look for what leaked",
            )
    losses = figures.train_losses, figures.validation_losses
    if all(losses) and figures.best_epoch is not None and len(losses[0]) == len(losses[1]):
        train, validation = (one[figures.best_epoch - 1] for one in losses)
        if validation - train > LOSS_GAP:
            yield (
                f"training loss {train:.3f}, validation loss {validation:.3f} in the best epoch",
                "stop earlier or regularise",
            )


def _allowed(accuracy: float, figures: Figures) -> float:
    """Ten points, and what few rows leave open."""
    rows = [rows for rows in (figures.test_rows, figures.validation_rows) if rows]
    return max(GAP, half_width(accuracy, accuracy, min(rows)) if rows else 0.0)
