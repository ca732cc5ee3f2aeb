"""V42x and V51x: time and memory of methods in an audited table that equal work cannot explain."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_quantized, rule
from peft_methods.methods.registry import METHODS

ABOVE = 1.25  # memory of a method with frozen weights, as a multiple of full fine-tuning's
# Families that add little to a layer's work. Prompts make rows longer, and orthogonal and spectral
# methods build a whole matrix for each layer.
LIGHT = ("low_rank", "scaling", "selective", "adapters")
BYTES = 16  # of a trained weight: weight, gradient and Adam's two states, 4 bytes each
MANY_TIMES = 4  # the bytes of the further weights: their activations, and the allocator's blocks
LEAST_SHARE, LEAST_BYTES = 0.25, 0.5e9  # of more memory; less may be other rows or the allocator
BLOCK = 20e6  # bytes that PyTorch's allocator takes at once
USUAL_PASSES = 2.0  # forward, and gradients of activations; full fine-tuning has three
USUAL, UNEXPLAINED = 2.0, 4.0  # times as fast as full fine-tuning, for a method of two passes


@rule("V417", "warning", "table", needs=("peak_memory method", "maximum_memory method"), rows=2)
def memory_above_full(group: Group) -> Iterator[tuple[str, str, str]]:
    """A method with frozen weights needs far more memory than full fine-tuning.

    It starts at 1.25 times full's. On small models LoRA and IA3 can lie a tenth above it, since
    their activations come on top and there is little to save; larger differences are other work, or
    one figure is the driver's. V406 looks at quantised methods.
    """
    full = group.full
    for row in group.partial():
        info = METHODS[str(row.method)].info
        if is_quantized(row.method) or info.family not in LIGHT or info.reads_weights:
            continue
        pairs = _comparable_memory(row, full) if full else ()
        own, fulls = max(pairs, key=lambda pair: pair[0] / pair[1], default=(0.0, 0.0))
        if own > ABOVE * fulls:
            yield (
                row.name,
                f"{own / fulls:.2f} times the memory of full fine-tuning "
                f"({_gigabytes(own)} and {_gigabytes(fulls)})",
                "give both the same batch, length, precision and checkpointing, and report the "
                "allocator's peak of training: the driver's figure includes what is only reserved",
            )


def _comparable_memory(one: ResultRow, other: ResultRow) -> tuple[tuple[float, float], ...]:
    """Return the pairs of figures of one kind, in bytes: both maxima, and both as given."""
    given = [row.peak_memory.value if row.peak_memory else None for row in (one, other)]
    pairs = ((one.maximum_memory, other.maximum_memory), (given[0], given[1]))
    return tuple((own, others) for own, others in pairs if own and others)


@rule(
    "V418",
    "warning",
    "table",
    needs=("peak_memory trainable method", "maximum_memory trainable method"),
    rows=2,
)
def memory_beyond_parameters(group: Group) -> Iterator[tuple[str, str, str]]:
    """One method with more parameters needs far more memory than these parameters explain.

    A trained parameter costs 16 bytes at most (weight, gradient, two states of Adam): 40 million
    cost 0.6 GB. It starts at four times that, a quarter of the smaller peak, and half a gigabyte,
    so that activations of further targets pass. Where the rows name other ranks and no other
    targets, it starts at four times that and twice the smaller peak, also below half a gigabyte.
    """
    for row in group.partial():
        less = _next_smaller(row, group)
        if less is None or _other_work(less, row):
            continue
        added, extra = _added(less, row), (row.memory or 0.0) - (less.memory or 0.0)
        smaller = less.memory or 0.0
        least = max(LEAST_SHARE * smaller, LEAST_BYTES)
        if _only_rank_differs(less, row):
            least = min(least, max(smaller, BLOCK))
        if extra > max(MANY_TIMES * BYTES * added, least):
            yield (
                row.name,
                f"{_gigabytes(extra)} more than {less.name} for {added / 1e6:,.3g} million more "
                f"parameters, which cost about {_gigabytes(BYTES * added)}",
                "look for what else differs: batch, length, targets, checkpointing",
            )


def _next_smaller(row: ResultRow, group: Group) -> ResultRow | None:
    """The row of the same method with the next smaller count, both with a memory figure."""
    smaller = [
        other
        for other in group.partial()
        if other.method == row.method and _comparable_memory(row, other) and _added(other, row) > 0
    ]
    return min(smaller, key=lambda other: _added(other, row), default=None)


def _added(less: ResultRow, more: ResultRow) -> float:
    """How many more parameters a row trains than another, at most."""
    if less.trainable is None or more.trainable is None:
        return 0.0
    if less.trainable.value >= more.trainable.value:
        return 0.0
    return more.trainable.high - less.trainable.low


def _only_rank_differs(one: ResultRow, other: ResultRow) -> bool:
    return bool(one.rank and other.rank) and one.targets == other.targets


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3g} GB"


def _other_work(one: ResultRow, other: ResultRow) -> bool:
    """Whether the rows say themselves that a step's work differs: V502 and V505 name that."""
    fields = ("batch_size", "max_length", "precision", "device")
    return any(
        getattr(one, name) != getattr(other, name)
        for name in fields
        if getattr(one, name) and getattr(other, name)
    )


@rule("V510", "warning", "table", needs=("train_seconds method",), rows=2)
def faster_than_work(group: Group) -> Iterator[tuple[str, str, str]]:
    """A method with frozen weights is much faster than full fine-tuning.

    It computes no gradients of frozen weights: two passes of three, so its passes are 1.5 times
    faster. With small batches of short texts the optimizer's step over all weights takes as long as
    a pass: up to 1.93 times was measured for equal work (MPNet on an H200). It starts at 2 times,
    per epoch where epochs are known, or later for a method of less than two passes. Up to four
    times, another optimizer, precision or batch was found in published tables (3.1 times in
    steps for a model of 3 billion weights); beyond that nothing ordinary explains it. Quantised
    methods are left to V506.
    """
    full = group.full
    if full is None or not full.train_seconds:
        return
    for row in group.partial():
        if not row.train_seconds or is_quantized(row.method) or _other_work(full, row):
            continue
        if full.train_rows and row.train_rows and full.train_rows != row.train_rows:
            continue
        ratio = full.train_seconds / row.train_seconds
        per_epoch = bool(full.epochs and row.epochs)
        if full.epochs and row.epochs:
            ratio *= row.epochs / full.epochs
        passes = METHODS[str(row.method)].info.cost_in_forward_passes
        fewer = max(1.0, USUAL_PASSES / passes)
        if ratio > USUAL * fewer:
            beyond = ratio > UNEXPLAINED * fewer
            yield (
                row.name,
                f"{ratio:.2g} times as fast as full fine-tuning"
                + (" per epoch" if per_epoch else "")
                + f"; equal work explains up to {USUAL * fewer:.2g}",
                "nothing ordinary explains this: look for fewer rows, shorter texts or another "
                "device"
                if beyond
                else "optimizer, precision, checkpointing, batch or epochs probably differ: name "
                "them, or give both the same",
            )
