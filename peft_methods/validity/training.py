"""V2xx: what is wrong with the training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peft_methods.methods import METHODS
from peft_methods.records import Record
from peft_methods.validity.base import is_floor, rule, some
from peft_methods.validity.counts import verdict
from peft_methods.validity.figures import Figures

FLAT = 0.001  # nats; no training leaves a loss within so little
FALL = 0.01  # the share of its first epoch's loss that training takes off at the least
GAIN = 0.005  # of accuracy, at the least
OWN_TARGETS = "the targets are not those configured"


@rule("V201", "error", "cell")
def frozen_weights_changed(record: Record) -> Iterator[tuple[str, str]]:
    """Weights that should be frozen are not what they were."""
    if changed := record.evidence.frozen_changed:
        yield (
            f"{len(changed)} frozen tensors changed ({some(changed)})",
            "the method trains, or corrupts, what it should not",
        )


@rule("V202", "error", "cell")
def parameters_not_moved(record: Record) -> Iterator[tuple[str, str]]:
    """Trainable parameters did not move by more than weight decay moves them."""
    if unmoved := record.evidence.unmoved:
        yield (
            f"{len(unmoved)} of {record.evidence.moved_checked} trained tensors did not move ({some(unmoved)})",
            "no gradient reaches them: nothing was trained there",
        )


def _judged(figures: Figures) -> str | None:
    """What the closed forms say of a count in a table."""
    if figures.trainable is None or figures.method is None or not figures.shapes:
        return None
    return verdict(figures.method, figures.trainable, figures.shapes)


@rule("V203", "error", "row")
def trainable_count_off(figures: Figures) -> Iterator[tuple[str, str]]:
    """The trainable parameters are not as many as the closed form says (in a table: for no known rank, targets or width)."""
    expected, counted = figures.expected_method_parameters, figures.method_parameters
    if expected is not None and counted and counted != expected:  # of none at all V206 speaks
        yield (
            f"{counted:,.0f} trainable parameters beside the head, {expected:,.0f} expected",
            OWN_TARGETS,
        )
    if _judged(figures) == "off":
        assert figures.method is not None
        assert figures.trainable is not None
        shape = figures.shapes[0]
        yield (
            f"{figures.trainable.text} trainable parameters are those of no {METHODS[figures.method].title} on a {shape.model_type} of "
            f"{shape.layers} layers, {shape.hidden} wide, with its head of {shape.head_parameters:,} or without",
            "print the names of what is trained: something else is, or a part is counted twice",
        )


@rule("V204", "warning", "row")
def loss_flat(figures: Figures) -> Iterator[tuple[str, str]]:
    """The training loss did not fall over the epochs (the floor method exempt)."""
    losses = [loss for loss in figures.train_losses if math.isfinite(loss)]
    if (
        len(losses) > 1
        and not is_floor(figures.method)
        and not figures.random
        and min(losses[1:]) > (1 - FALL) * losses[0]
    ):
        yield (
            f"training loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last",
            "raise the learning rate; does a gradient flow?",
        )


@rule("V205", "error", "row")
def head_not_trained(figures: Figures) -> Iterator[tuple[str, str]]:
    """The classification head, which starts as noise, was not trained as a whole, or is held in 4 bits."""
    advice = "train it whole, in full precision (modules_to_save; llm_int8_skip_modules)"
    if figures.head_quantized:
        yield f"{figures.head_quantized} tensors of the head are held in 4 bits", advice
    whole, trained = figures.head_parameters, figures.head_trained
    if whole is not None and trained is not None and trained < whole:
        yield f"{trained:,.0f} of the head's {whole:,.0f} parameters were trained", advice
    if _judged(figures) == "head missing":
        assert figures.trainable is not None
        shape = figures.shapes[0]
        classes = (shape.hidden + 1) * shape.labels
        yield (
            f"{figures.trainable.text} trainable parameters are the method's and {classes:,} of the head's {shape.head_parameters:,}: "
            f"its dense layer is new and was left as it was drawn, or quantised",
            advice,
        )


@rule("V206", "error", "row")
def nothing_matched(figures: Figures) -> Iterator[tuple[str, str]]:
    """The method trained nothing beside the head: its target modules matched nothing."""
    trained = figures.method_parameters == 0 or _judged(figures) == "nothing"
    if trained and not is_floor(figures.method):
        yield (
            "nothing is trained but the head",
            "name modules that this model has: print model.named_modules()",
        )


@rule("V207", "error", "cell")
def nothing_quantized(record: Record) -> Iterator[tuple[str, str]]:
    """A method on a quantised model ran on one with nothing quantised."""
    if (
        record.method_name in METHODS
        and METHODS[record.method_name].info.quantization
        and record.evidence.quantized == 0
    ):
        yield (
            "no weight is held in 4 bits",
            "load the model with its quantisation: what was measured is LoRA",
        )


@rule("V208", "error", "row")
def validation_loss_constant(figures: Figures) -> Iterator[tuple[str, str]]:
    """The validation loss stayed the same over the epochs: nothing that matters was trained (the floor method exempt)."""
    losses, accuracies = (
        [loss for loss in figures.validation_losses if math.isfinite(loss)],
        figures.validation_accuracies,
    )
    if len(losses) < 3 or is_floor(figures.method) or not max(losses) - min(losses) < FLAT:
        return
    said = f"validation loss {min(losses):.4f} to {max(losses):.4f} in {len(losses)} epochs"
    if len(accuracies) == len(losses) and len(set(accuracies)) == 1:
        said += f", accuracy {accuracies[0]:.4f} in all"
    yield said, "check that the method's parameters are active and reach the optimizer"


@rule("V209", "warning", "row")
def rate_at_the_edge(figures: Figures) -> Iterator[tuple[str, str]]:
    """The learning rate chosen is the lowest or the highest that was tried: a better one may lie beyond."""
    rate, tried = figures.learning_rate, sorted(set(figures.rates))
    if rate is not None and len(tried) > 1 and not tried[0] < rate < tried[-1]:
        where = "lowest" if rate <= tried[0] else "highest"
        yield (
            f"{rate:g} is the {where} of {len(tried)} rates of its grid ({tried[0]:g} to {tried[-1]:g})",
            "widen the grid on that side",
        )


@rule("V210", "note", "comparison")
def still_improving(rows: Sequence[Figures]) -> Iterator[tuple[str, str, str]]:
    """The best epoch is the last, and better than those before it by more than chance: more epochs may give more."""
    gains = {row.name: gain for row in rows if (gain := _last_gain(row)) > 0}
    if gains:
        most = max(gains, key=lambda name: gains[name])
        whose = f" ({most})" if len(gains) > 1 else ""
        yield (
            ", ".join(gains),
            f"up to {100 * gains[most]:.1f} points of validation accuracy{whose} came in the last epoch",
            "train longer, all alike",
        )


def _last_gain(row: Figures) -> float:
    """What the last epoch added to the best before it; 0 where chance may have."""
    *before, last = row.validation_accuracies or (0.0,)
    noise = (last * (1 - last) / row.validation_rows) ** 0.5 if row.validation_rows else 0.0
    gain = last - max(before, default=last)
    return gain if gain > max(noise, GAIN) else 0.0
