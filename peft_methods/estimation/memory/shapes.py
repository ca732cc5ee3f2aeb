"""Programs of a run for many shapes of its batch, most of them computed from few recorded ones.

A program has the same operations for every batch. What they allocate and compute is affine in the
rows of a batch, and a polynomial of degree two in the tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import groupby

from peft_methods.estimation.memory.program import RecordedProgram
from peft_methods.estimation.memory.recorder import Recording
from peft_methods.estimation.operations import Operation
from peft_methods.profiling.peak_memory import Event

Shape = tuple[int, int]  # rows of a batch, tokens of a row
# Within which a shape is computed: the factor beyond the recorded ones.
FARTHEST = 4


class Programs:
    """The programs of one run by shape. `record` records one that cannot be computed."""

    def __init__(self, record: Callable[[int, int], RecordedProgram]) -> None:
        self._record = record
        self._recorded: dict[Shape, RecordedProgram] = {}

    def of(self, rows: int, length: int) -> RecordedProgram:
        """Return the program of batches of so many rows of so many tokens."""
        if (rows, length) in self._recorded:
            return self._recorded[rows, length]
        same_length = {b: p for (b, n), p in self._recorded.items() if n == length}
        same_rows = {n: p for (b, n), p in self._recorded.items() if b == rows}
        found = _computed(same_length, rows, 2) or _computed(same_rows, length, 3)
        if found is None:
            found = self._recorded[rows, length] = self._record(rows, length)
        return found


def _computed(
    recorded: Mapping[int, RecordedProgram], size: int, points: int
) -> RecordedProgram | None:
    """Return the program at this size by a polynomial through the nearest recorded ones.

    None if there are too few, if they are too far, or if they are not the same operations.
    """
    nearest = sorted(recorded, key=lambda one: abs(one - size))[:points]
    if len(nearest) < points or not min(nearest) / FARTHEST <= size <= max(nearest) * FARTHEST:
        return None
    programs = [recorded[one] for one in nearest]
    first = programs[0]
    if any(_form(one) != _form(first) for one in programs[1:]):
        return None
    weights = _lagrange(nearest, size)

    def mixed(values: Sequence[int]) -> int:
        return max(0, round(sum(w * v for w, v in zip(weights, values, strict=True))))

    events = [
        one[0] if one[0].size == 0 else Event(one[0].address, max(1, mixed([e.size for e in one])))
        for one in zip(*(p.recording.events for p in programs), strict=True)
    ]
    mixed_once = cache(partial(_mixed_operation, mixed=mixed))  # most are the same in every layer
    operations = [
        mixed_once(one) for one in zip(*(p.recording.operations for p in programs), strict=True)
    ]
    return replace(
        first,
        recording=Recording(events, operations, first.recording.makers),
        rows=mixed([p.rows for p in programs]),
        tokens=mixed([p.tokens for p in programs]),
    )


def _form(program: RecordedProgram) -> tuple[list[tuple[bool, tuple[int, ...]]], list[str]]:
    """Return what two programs must have in common: events and operations, without sizes.

    The order in which blocks are freed one after the other does not matter: autocast's cache has
    none.
    """
    runs = [
        (is_made, tuple(sorted(event.address for event in run)))
        for is_made, run in groupby(program.recording.events, key=lambda event: event.size > 0)
    ]
    return runs, [one.name for one in program.recording.operations]


def _mixed_operation(
    ones: tuple[Operation, ...], mixed: Callable[[Sequence[int]], int]
) -> Operation:
    first = ones[0]
    return replace(
        first,
        flops=mixed([one.flops for one in ones]),
        read_bytes=mixed([one.read_bytes for one in ones]),
        written_bytes=mixed([one.written_bytes for one in ones]),
        shapes=tuple(
            tuple(mixed(sizes) for sizes in zip(*shapes, strict=True))
            for shapes in zip(*(one.shapes for one in ones), strict=True)
        ),
    )


def _lagrange(points: Sequence[int], at: int) -> list[float]:
    """Return the weights of the values at these points, of a polynomial through them."""
    weights = []
    for one in points:
        weight = 1.0
        for other in points:
            if other != one:
                weight *= (at - other) / (one - other)
        weights.append(weight)
    return weights
