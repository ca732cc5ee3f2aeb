"""V42x: figures of an audited table beyond physical limits, or that contradict one another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from peft_methods.analysis.checks.device_limits import devices_of, limits_of
from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_floor, rule
from peft_methods.methods.registry import METHODS
from peft_methods.tasks.metrics import in_seconds
from peft_methods.utils.words import counted

LEAST_BYTES = 0.5  # of a weight that can be quantised: 4 bits
HALF = 2.0  # bytes of an embedding, which libraries do not quantise, and of full fine-tuning's
SHARDED = 1e9  # parameters; larger models may be parted over the GPUs of a node
NODE = 8  # GPUs
OFFLOADED = re.compile(r"off[\s_-]?load|\bzero[\s_-]?(?:3|infinity)|\bfsdp\b|\bairllm\b|\bnvme\b")
LEAST_TOKENS = 8.0  # of a row on average: begin, end and six tokens of text
LEAST_FILLED = 1 / 32  # of the maximum length: SST-2 has 25 tokens on average, often with 512
FORWARD, TRAINED = 2.0, 4.0  # FLOPs of a parameter and token, and of its two gradients
THROUGHPUT = 1.25  # largest ratio of rows a second to rows over time, in either direction
STEPS = 1.02  # rows in all steps of an epoch, as a multiple of the rows
HOST_WATTS = 400.0  # processors and memory, which some tools include
ABOVE, BELOW = 1.1, 0.04  # of the power limit: readings are 5 % off; an idle GPU needs 5 to 10 %


@rule("V419", "error", "table", needs=("peak_memory total_parameters",))
def peak_below_weights(group: Group) -> Iterator[tuple[str, str, str]]:
    """The peak is smaller than the model's weights, which are on the device all the time.

    It starts below the smallest size of the weights: 4 bits each, embeddings 16 bits; 16 bits for
    all in full fine-tuning. For models of a billion parameters and more, whose weights may be
    parted over the GPUs of a node, it starts at an eighth of that. Rows whose name says that
    weights are offloaded or parted (ZeRO-3, FSDP) are exempt.
    """
    for row in group.methods:
        count, peak = row.total_parameters, row.peak_memory
        if not count or peak is None or _is_another_size(row) or _is_offloaded(row):
            continue
        weights = _least_weights(row, count) / (NODE if count >= SHARDED else 1)
        if peak.high < weights:
            yield (
                row.name,
                f"a peak of {peak.value / 1e6:,.0f} MB, but the weights of {_size(count)} "
                f"parameters need {weights / 1e6:,.0f} MB at least",
                "report the peak of the whole process: this is what training added, or what was "
                "left after it",
            )


@rule("V424", "warning", "table", needs=("peak_memory total_parameters",))
def peak_below_weights_of_devices(group: Group) -> Iterator[tuple[str, str, str]]:
    """The peak is smaller than a large model's weights, and no devices are named that share them.

    It looks at models of a billion parameters and more, and starts below the smallest size of the
    weights (see V419) over the number of devices that the row names, one if it names none. Below an
    eighth of the weights V419 says more.
    """
    for row in group.methods:
        count, peak = row.total_parameters, row.peak_memory
        if not count or count < SHARDED or peak is None or _is_another_size(row):
            continue
        if _is_offloaded(row):
            continue
        weights, devices = _least_weights(row, count), devices_of(row.device)
        if weights / NODE <= peak.high < weights / devices:
            on = f" on {counted(devices, 'device')}" if row.device else ""
            share = weights / devices
            yield (
                row.name,
                f"a peak of {peak.value / 1e6:,.0f} MB, but the weights of {_size(count)} "
                f"parameters need {share / 1e6:,.0f} MB at least{on}",
                "name how many devices hold the model, or what was moved to the host's memory, and "
                "give the sum of their peaks: as it stands no other row can be compared with it",
            )


def _size(count: float) -> str:
    return f"{count / 1e9:,.3g} billion" if count >= SHARDED else f"{count / 1e6:,.3g} million"


def _least_weights(row: ResultRow, count: float) -> float:
    if row.method == METHODS.reference:
        return HALF * count
    embeddings = min(
        (
            max(0.0, float(one.embedding_width) * _vocabulary(one.sizes.outer, one.embedding_width))
            for one in row.architectures
        ),
        default=0.0,
    )
    return LEAST_BYTES * (count - embeddings) + HALF * embeddings


def _vocabulary(outer: int, width: int) -> int:
    """The rows of all embeddings: the weights outside the layers are little else."""
    return outer // width - 2 if width else 0


def _is_offloaded(row: ResultRow) -> bool:
    """Whether the row's name says that weights are moved to the host, or parted."""
    return OFFLOADED.search(row.name.casefold()) is not None


def _is_another_size(row: ResultRow) -> bool:
    """Whether the row's own total says that it is about a smaller model."""
    return row.total is not None and row.total.high < (row.total_parameters or 0.0) / 2


@rule("V425", "warning", "table", needs=("train_seconds method",))
def time_is_zero(group: Group) -> Iterator[tuple[str, str, str]]:
    """The training time of a method that trains is zero.

    It starts where no digit is above zero, also of a time that was rounded to zero: no other time
    can be compared with it. Rows that train nothing, and those of unknown methods, are exempt.
    """
    for row in group.methods:
        trains = row.method is not None and (row.trainable is None or row.trainable.high > 0)
        if trains and row.train_seconds == 0:
            yield (
                row.name,
                "a training time of zero",
                "give it in seconds, or leave the cell empty if it was not measured",
            )


@rule(
    "V420", "warning", "table", needs=("train_seconds train_rows epochs device total_parameters",)
)
def faster_than_device(group: Group) -> Iterator[tuple[str, str, str]]:
    """Training took less time than the device needs at its peak rate.

    The work is 2 FLOPs a parameter and token for the forward pass, 2 more for the gradients of the
    activations, and 2 for those of trained weights. It starts where eight tokens a row, or a 32nd
    of the maximum length, are too many without embeddings: real texts have more, so that smaller
    mistakes are not seen.
    """
    for row in group.methods:
        known = limits_of(row.device)
        if known is None or not row.train_seconds or is_floor(row.method):
            continue
        if not (row.train_rows and row.epochs and row.total_parameters):
            continue
        limits, devices = known
        layers = min(
            (float(one.distinct_layers * one.sizes.layer) for one in row.architectures),
            default=row.total_parameters / 2,
        )
        passes = FORWARD + (TRAINED if row.method == METHODS.reference else TRAINED / 2)
        tokens = max(LEAST_TOKENS, LEAST_FILLED * (row.max_length or 0.0))
        flops = passes * layers * tokens * row.train_rows * row.epochs
        least = flops / (limits.flops * devices)
        if row.train_seconds < least:
            yield (
                row.name,
                f"{in_seconds(row.train_seconds)} for {row.train_rows * row.epochs:,.0f} rows; "
                f"{devices} x {limits.name} at {limits.flops / 1e12:,.0f} TFLOP/s need "
                f"{in_seconds(least)} for {tokens:,.0f} tokens of each",
                "name every device, and check that all rows and epochs were trained in that time",
            )


@rule("V421", "warning", "table", needs=("samples_per_second train_seconds train_rows epochs",))
def throughput_contradicts(group: Group) -> Iterator[tuple[str, str, str]]:
    """The rows a second are not the trained rows over the training time.

    It starts at 1.25 times, in either direction: the time may include a little beside the steps.
    """
    for row in group.methods:
        rate, seconds, rows, epochs = (
            row.samples_per_second,
            row.train_seconds,
            row.train_rows,
            row.epochs,
        )
        if not (rate and seconds and rows and epochs):
            continue
        ratio = rate * seconds / (rows * epochs)
        if not 1 / THROUGHPUT <= ratio <= THROUGHPUT:
            yield (
                row.name,
                f"{rate:,.4g} rows a second for {in_seconds(seconds)} are "
                f"{rate * seconds:,.0f} rows, but {epochs:g} epochs of {rows:,.0f} are "
                f"{rows * epochs:,.0f}",
                "one of the figures is another run's, or the rate is that of inference",
            )


@rule(
    "V422",
    "warning",
    "table",
    needs=("steps_per_epoch batch_size train_rows", "total_steps steps_per_epoch epochs"),
)
def steps_contradict(group: Group) -> Iterator[tuple[str, str, str]]:
    """The steps do not fit the rows and the batch, or the epochs.

    It starts where the steps of an epoch hold 2 % and one batch more than the rows, or fewer rows
    than any whole number of batches a step (accumulation, several devices) explains; or where all
    steps are more than epochs times steps per epoch, by 2 % and a step an epoch.
    """
    for row in group.methods:
        steps, batch, rows = row.steps_per_epoch, row.batch_size, row.train_rows
        if steps and batch and rows and not _steps_fit(steps, batch, rows):
            yield (
                row.name,
                f"{steps:,.0f} steps of {batch:,.0f} rows are {steps * batch:,.0f} rows, but an "
                f"epoch has {rows:,.0f}",
                "give the rows of a whole step: batch x accumulation x devices",
            )
        total, epochs = row.total_steps, row.epochs
        if total and steps and epochs and total > (STEPS * steps + 1) * epochs:
            yield (
                row.name,
                f"{total:,.0f} steps in all, but {epochs:g} epochs of {steps:,.0f} are "
                f"{epochs * steps:,.0f}",
                "one of the figures is another run's",
            )


def _steps_fit(steps: float, batch: float, rows: float) -> bool:
    if steps * batch > STEPS * rows + batch:
        return False
    groups = max(1, round(rows / (steps * batch)))
    return any(
        math.floor(rows / (batch * one)) - 1 <= steps <= math.ceil(rows / (batch * one)) + 1
        for one in (groups, groups + 1, max(1, groups - 1))
    )


@rule("V423", "warning", "table", needs=("energy_joules train_seconds device",))
def energy_impossible(group: Group) -> Iterator[tuple[str, str, str]]:
    """The energy is more than the device can draw in that time, or less than it draws idle.

    It starts at 1.1 times the power limit of the named devices plus 400 W for their host, and at
    4 % of the limit: idle GPUs draw 5 to 10 %.
    """
    for row in group.methods:
        known = limits_of(row.device)
        if known is None or not row.energy_joules or not row.train_seconds:
            continue
        limits, devices = known
        watts = row.energy_joules / row.train_seconds
        limit = limits.watts * devices
        if watts > ABOVE * limit + HOST_WATTS or watts < BELOW * limit:
            yield (
                row.name,
                f"{watts:,.4g} W on average; {devices} x {limits.name} has a power limit of "
                f"{limit:,.0f} W",
                "check the units (Wh, kWh, J), the time, and how many devices were measured",
            )
