"""Plants one mistake in an honest table, at a size that a reader would call a mistake.

Each kind changes one row, or returns None where the table has no row for it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from table_builders import FLOPS, Table, TableRow, honest_table
from table_count_flaws import COUNT_FLAWS
from table_planting import Flaw, Planter, part, with_flaw

TRIES = 200


def flawed_table(kind: str, rng: random.Random) -> Flaw:
    """Return an honest table with a mistake of this kind."""
    for _ in range(TRIES):
        found = FLAWS[kind](rng, honest_table(rng))
        if found is not None:
            return found
    raise AssertionError(f"no table has a row for {kind!r}")


def _ratio(field: str, methods: str, other: str, least: float, most: float) -> Planter:
    """A cost that is too small or too large a multiple of another method's."""

    def plant(rng: random.Random, table: Table) -> Flaw | None:
        found, beside = part(table, *methods.split(), costs=True), table.index_of(other)
        if found is None or beside is None:
            return None
        value = getattr(table.rows[beside], field) * rng.uniform(least, most)
        return with_flaw(table, found[0], field, **{field: value})

    return plant


def _same_peak(rng: random.Random, table: Table) -> Flaw | None:
    found, full = part(table, "lora", "ia3", "bitfit", costs=True), table.index_of("full")
    if found is None or full is None:
        return None
    peak = table.rows[full].peak_memory
    return replace(with_flaw(table, found[0], "peak_memory", peak_memory=peak), subject="")


def _below_weights(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, "full", costs=True)
    if found is None:
        return None
    peak = (found[1].total or 0) * rng.uniform(0.3, 1.2)  # bytes: less than two for each weight
    return with_flaw(table, found[0], "peak_memory trainable", peak_memory=peak, max_memory=peak)


def _below_arithmetic(rng: random.Random, table: Table) -> Flaw | None:
    """A fiftieth of what passes through the layers take at the device's highest rate.

    That is for rows of the maximum length, of which real texts fill a 32nd at least. Half a second
    at least, so that no unit rounds it to zero. A reader cannot count embeddings: these are looked
    up and not multiplied.
    """
    found = part(table, "full", costs=True)
    if found is None:
        return None
    index, row = found
    tokens = (row.train_rows or 0) * (row.epochs or 0) * (row.max_length or 0)
    model = table.architecture
    seconds = 6 * model.distinct_layers * model.sizes.layer * tokens / FLOPS / 50
    if seconds < 0.5:
        return None
    needed = "train_seconds trainable train_rows epochs max_length device precision"
    return with_flaw(table, index, needed, train_seconds=seconds)


def _throughput(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, costs=True)
    if found is None:
        return None
    given = (found[1].samples_per_second or 0) * rng.choice((0.2, 3.0, 8.0))
    needed = "train_seconds train_rows epochs samples_per_second"
    return with_flaw(table, found[0], needed, samples_per_second=given)


def _steps(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, costs=True)
    if found is None:
        return None
    steps = (found[1].steps_per_epoch or 0) * rng.choice((3, 10))
    return with_flaw(
        table, found[0], "steps_per_epoch train_rows batch_size", steps_per_epoch=steps
    )


def _energy(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, costs=True)
    if found is None:
        return None
    joules = (found[1].train_seconds or 0) * rng.uniform(3_000, 20_000)
    return with_flaw(table, found[0], "train_seconds energy_joules device", energy_joules=joules)


def _test_is_validation(rng: random.Random, table: Table) -> Flaw | None:
    if len(table.rows) < 3:
        return None
    rows = [replace(row, accuracy=round(row.validation_accuracies[-1], 5)) for row in table.rows]
    changed = replace(table, rows=tuple(rows))
    return Flaw(changed, "", ("accuracy", "validation_accuracies"))


def _accuracy(value: Callable[[TableRow], float], needed: str) -> Planter:
    def plant(rng: random.Random, table: Table) -> Flaw | None:
        found = part(table)
        return found and with_flaw(table, found[0], needed, accuracy=value(found[1]))

    return plant


def _not_of_its_log(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table)
    if found is None:
        return None
    value = (found[1].validation_accuracy or 0) - 0.027
    needed = "validation_accuracy validation_accuracies"
    return with_flaw(table, found[0], needed, validation_accuracy=value)


def _not_finite(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table)
    if found is None or len(found[1].validation_losses) < 2:  # a lone nan is a missing value
        return None
    losses = (*found[1].validation_losses[:-1], math.nan)
    return with_flaw(table, found[0], "validation_losses", validation_losses=losses)


def _constant_loss(rng: random.Random, table: Table) -> Flaw | None:
    """A loss, and an accuracy, that did not change in three epochs or more."""
    found = part(table)
    if found is None or len(found[1].validation_losses) < 3:
        return None
    index, row = found
    last, count = row.validation_accuracies[-1], len(row.validation_losses)
    same = {"validation_losses": (0.69315,) * count, "validation_accuracies": (last,) * count}
    return with_flaw(table, index, "validation_losses", **same)


def _below_maximum(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, costs=True)
    if found is None:
        return None
    peak = (found[1].peak_memory or 0) * rng.uniform(0.05, 0.6)
    return with_flaw(table, found[0], "peak_memory max_memory", peak_memory=peak)


def _other(name: str, value: Callable[[TableRow], object]) -> Planter:
    """One row with another value than all others have."""

    def plant(rng: random.Random, table: Table) -> Flaw | None:
        found = part(table, costs=True)
        if found is None or len(table.rows) < 3:
            return None
        return with_flaw(table, found[0], name, **{name: value(found[1])})

    return plant


def _rate(rng: random.Random, table: Table) -> Flaw | None:
    found, full = part(table, "lora", "adapter"), table.index_of("full")
    if found is None or full is None:
        return None
    rate = table.rows[full].learning_rate
    return with_flaw(table, found[0], "learning_rate", learning_rate=rate)


def _rank_memory(rng: random.Random, table: Table) -> Flaw | None:
    """Two ranks of LoRA whose peaks differ by far more than the further parameters need."""
    found = part(table, "lora", costs=True)
    if found is None:
        return None
    index, row = found
    head, peak = table.architecture.head_parameters, (row.peak_memory or 0) * 2.5
    count = 4 * ((row.trainable or 0) - head) + head
    high = replace(row, name="LoRA (r=64)", trainable=count, peak_memory=peak, max_memory=peak)
    rows = (*table.changed(index, name="LoRA (r=16)").rows, high)
    return Flaw(replace(table, rows=rows), "LoRA", ("peak_memory", "trainable"))


FLAWS: Mapping[str, Planter] = {
    **COUNT_FLAWS,
    "rank memory": _rank_memory,
    "above full": _ratio("peak_memory", "lora", "full", 1.5, 2.5),
    "too fast": _ratio("train_seconds", "lora ia3", "full", 0.11, 0.22),
    "same peak": _same_peak,
    "below weights": _below_weights,
    "below arithmetic": _below_arithmetic,
    "throughput": _throughput,
    "steps": _steps,
    "energy": _energy,
    "test is validation": _test_is_validation,
    "zero": _accuracy(lambda row: 0.0, "accuracy test_rows"),
    "chance": _accuracy(lambda row: (row.majority or 0) - 0.002, "accuracy majority"),
    "perfect": _accuracy(lambda row: 1.0, "accuracy"),
    "not of its log": _not_of_its_log,
    "not finite": _not_finite,
    "constant loss": _constant_loss,
    "below maximum": _below_maximum,
    "epochs": _other("epochs", lambda row: (row.epochs or 1) * 2 + 1),
    "data": _other("train_rows", lambda row: (row.train_rows or 0) // 2),
    "device": _other("device", lambda row: "Tesla T4"),
    "rate": _rate,
    "qlora too fast": _ratio("train_seconds", "qlora", "lora", 0.1, 0.4),
}
