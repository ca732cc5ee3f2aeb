"""V2xx: mistakes in the training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peft_methods.analysis.checks.parameter_counts import row_verdict, setting_words
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import first_three, is_floor, rule
from peft_methods.methods.registry import METHODS
from peft_methods.runs.record import Record
from peft_methods.utils.words import counted

FLAT = 0.001  # nats; real training changes the loss by more
FALL = 0.01  # smallest share of the first epoch's loss that training removes
RISE = 0.1  # nats above the best epoch; smaller rises are noise
LEARNT = 0.01  # nats; such a loss leaves nothing to learn
UNCHANGED = 1e-4  # share of the loss; between two epochs of real training it changes by more
FINE = 0.0006  # accuracies with three digits or more show small changes
TINY = 1e-9  # errors of floating-point sums
GAIN = 0.005  # smallest gain in accuracy that counts
OWN_TARGETS = "check the target modules: they are not those configured"


@rule("V201", "error", "run")
def frozen_weights_changed(record: Record) -> Iterator[tuple[str, str]]:
    """Weights that should be frozen have changed."""
    if changed := record.evidence.frozen_changed:
        yield (
            f"{counted(len(changed), 'frozen tensor')} changed ({first_three(changed)})",
            "the method trains or corrupts weights that it should leave alone",
        )


@rule("V202", "error", "run")
def parameters_not_moved(record: Record) -> Iterator[tuple[str, str]]:
    """Trainable parameters moved no more than weight decay moves them."""
    if unmoved := record.evidence.unmoved:
        yield (
            f"{len(unmoved)} of {record.evidence.moved_checked} trained tensors did not move "
            f"({first_three(unmoved)})",
            "check that gradients reach these tensors and that the optimizer holds them",
        )


@rule(
    "V203",
    "error",
    "row",
    needs=(
        "trainable method architectures",
        "method_parameters expected_method_parameters",
    ),
)
def trainable_count_off(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The trainable count is off its closed form (tables: it fits no rank, targets or width)."""
    expected, counted = row.expected_method_parameters, row.method_parameters
    if expected is not None and counted and counted != expected:  # V206 covers zero
        yield (
            f"{counted:,.0f} trainable parameters without the head, {expected:,.0f} expected",
            OWN_TARGETS,
        )
    if row_verdict(row) == "off":
        assert row.method is not None
        assert row.trainable is not None
        architecture = row.architectures[0]
        yield (
            f"no configuration of {METHODS[row.method].title}{setting_words(row)} has "
            f"{row.trainable.text} trainable parameters on a {architecture.model_type} with "
            f"{architecture.layers} layers of width {architecture.hidden}, with or without a head",
            "print the names of the trainable parameters: other ones are trained too, "
            "or some are counted twice",
        )


@rule("V204", "warning", "row", needs=("train_losses",))
def loss_flat(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The training loss did not fall over the epochs, or rose again: the training diverged.

    head_only is exempt from the first. A loss that is near zero already need not fall.
    """
    losses = [loss for loss in row.train_losses if math.isfinite(loss)]
    if len(losses) < 2 or row.random:
        return
    first, lowest, last = losses[0], min(losses), losses[-1]
    if last - lowest > max(RISE, (first - lowest) / 2):
        yield (
            f"training loss {first:.4f} in the first epoch, {lowest:.4f} in the best, "
            f"{last:.4f} in the last",
            "lower the learning rate or warm up longer: the training diverged",
        )
    elif not is_floor(row.method) and last > max((1 - FALL) * first, LEARNT):
        yield (
            f"training loss {first:.4f} in the first epoch, {last:.4f} in the last",
            "raise the learning rate, and check that gradients are not zero",
        )


@rule(
    "V205",
    "error",
    "row",
    needs=(
        "trainable method architectures",
        "head_parameters head_trained",
        "head_quantized",
    ),
)
def head_not_trained(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The classification head, newly initialised, was not fully trained, or is quantised."""
    advice = "train the whole head in full precision (modules_to_save; llm_int8_skip_modules)"
    if row.head_quantized:
        verb = "is" if row.head_quantized == 1 else "are"
        yield f"{counted(row.head_quantized, 'tensor')} of the head {verb} quantised", advice
    whole, trained = row.head_parameters, row.head_trained
    if whole is not None and trained is not None and trained < whole:
        yield f"{trained:,.0f} of the head's {whole:,.0f} parameters were trained", advice
    if row_verdict(row) == "head missing":
        assert row.trainable is not None
        architecture = row.architectures[0]
        yield (
            f"{row.trainable.text} trainable parameters are those of the method and of the head's "
            f"last matrix: the dense layer of a {architecture.model_type}'s head for sequences, "
            f"newly initialised, was not trained or is quantised",
            advice,
        )


@rule(
    "V206",
    "error",
    "row",
    needs=(
        "trainable method architectures",
        "method_parameters",
    ),
)
def nothing_matched(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The method trained nothing but the head: its target modules matched nothing."""
    trained = row.method_parameters == 0 or row_verdict(row) == "nothing"
    if trained and not is_floor(row.method):
        yield (
            "only the head is trained",
            "set targets to modules that this model has: print model.named_modules()",
        )


@rule("V207", "error", "run")
def nothing_quantized(record: Record) -> Iterator[tuple[str, str]]:
    """A method for quantised models ran on a model without quantised weights."""
    if (
        record.method_name in METHODS
        and METHODS[record.method_name].info.quantization
        and record.evidence.quantized == 0
    ):
        yield (
            "no weight is quantised",
            "load the model with its quantisation config: this run measured plain LoRA",
        )


@rule("V208", "error", "row", needs=("validation_losses",))
def validation_loss_constant(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The validation loss stayed constant: nothing useful was trained (head_only is exempt).

    So is a recipe with `expect.above_majority = false`, as for small sizes of a learning curve.

    Accuracies, if known, must be constant too: rounded losses may be equal while training works.
    Two epochs of a sound run may have nearly equal losses, so of these either the losses must be
    equal to 0.01 %, or the accuracy not above the share of the most frequent class.
    """
    losses = [loss for loss in row.validation_losses if math.isfinite(loss)]
    accuracies = row.validation_accuracies
    are_known = len(accuracies) == len(losses)
    is_exempt = is_floor(row.method) or row.may_learn_nothing
    if len(losses) < 2 or is_exempt or (are_known and len(set(accuracies)) > 1):
        return
    unseen = 0.0 if are_known and row.rounding < FINE else 2 * row.loss_rounding
    if max(losses) - min(losses) + unseen > _constant_within(row, losses) + TINY:
        return
    evidence = f"validation loss {min(losses):.4f} to {max(losses):.4f} in {len(losses)} epochs"
    if are_known:
        evidence += f", accuracy {accuracies[0]:.4f} in all"
    yield evidence, "check that the method's parameters are active and reach the optimizer"


def _constant_within(row: ResultRow, losses: Sequence[float]) -> float:
    """Return by how much the losses of a run that trained nothing may differ."""
    counts, accuracies = row.class_counts.get("validation", ()), row.validation_accuracies
    guesses = bool(accuracies) and sum(counts) > 0 and max(accuracies) <= max(counts) / sum(counts)
    if len(losses) > 2 or guesses:
        return min(FLAT, FALL * max(losses))
    return UNCHANGED * max(losses)


@rule("V209", "warning", "row", needs=("learning_rate rates",))
def rate_at_the_edge(row: ResultRow) -> Iterator[tuple[str, str]]:
    """The chosen learning rate is the lowest or highest tried: a better one may lie beyond."""
    rate, tried = row.learning_rate, sorted(set(row.rates))
    if rate is not None and len(tried) > 1 and not tried[0] < rate < tried[-1]:
        where = "lowest" if rate <= tried[0] else "highest"
        yield (
            f"{rate:g} is the {where} of the {len(tried)} rates in its grid "
            f"({tried[0]:g} to {tried[-1]:g})",
            "widen the grid on that side",
        )


@rule("V210", "note", "comparison", needs=("validation_accuracies",), rows=1)
def still_improving(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """The last epoch is the best, by more than chance: more epochs may improve the result."""
    gains = {row.name: gain for row in rows if (gain := _last_gain(row)) > 0}
    if gains:
        most = max(gains, key=lambda name: gains[name])
        whose = f" ({most})" if len(gains) > 1 else ""
        yield (
            ", ".join(gains),
            f"up to {100 * gains[most]:.1f} points of validation accuracy{whose} came in the last "
            "epoch",
            "train all methods for more epochs",
        )


def _last_gain(row: ResultRow) -> float:
    """Return the last epoch's gain over the best earlier one; 0 if it may be chance."""
    *before, last = row.validation_accuracies or (0.0,)
    noise = (last * (1 - last) / row.validation_rows) ** 0.5 if row.validation_rows else 0.0
    gain = last - max(before, default=last)
    return gain if gain > max(noise, GAIN) else 0.0
