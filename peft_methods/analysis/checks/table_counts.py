"""V21x: counts of trainable parameters in an audited table that contradict one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from peft_methods.analysis.checks.group import Group
from peft_methods.analysis.checks.parameter_counts import (
    Settings,
    row_verdict,
    settings_of,
    verdict,
)
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import is_floor, is_quantized, rule

EXACT_DIGITS = 6  # counts of different things are not equal by chance to so many digits
COMPARED_DIGITS = 3  # a count with fewer digits does not show other targets
CLASSES = 2
HEAD_DIGITS = 5  # a count with fewer digits fits with the head and without it
ALL = 0.995  # a share that is written as 100 %
SLACK = 0.05  # of a share: head, pooler or embeddings may be counted on one side


@rule("V211", "error", "table", needs=("trainable method",))
def nothing_trained(group: Group) -> Iterator[tuple[str, str, str]]:
    """A method that trains some parameters has none, or none beside the head.

    It starts at exactly zero, and at an exact count that equals that of a row that trains the head
    alone, or the head that full fine-tuning's exact count tells, unless usual settings train as
    many without a head. Methods that train the head alone are exempt, since a table may count
    without the head.
    """
    heads = {
        row.trainable.value
        for row in group.methods
        if is_floor(row.method) and row.trainable and row.trainable.digits >= COMPARED_DIGITS
    }
    for row in group.methods:
        if row.method is None or is_floor(row.method) or row.trainable is None:
            continue
        count = row.trainable
        if count.value == 0 and count.high < 1:
            yield (
                row.name,
                f"{count.text} trainable parameters",
                "count them after the method is applied and before training; if there are none, "
                "these are the results of the untrained model",
            )
        elif count.low == count.high and (count.value in heads or _is_known_head(row)):
            yield (
                row.name,
                f"{count.text} trainable parameters, those of the head alone",
                "check the names of the targets: they matched no module of this model",
            )


def _is_known_head(row: ResultRow) -> bool:
    """Whether a count is that of the head, as full fine-tuning's count tells it, and no method's.

    V206 finds those that no setting explains.
    """
    count, models = row.trainable, row.architectures
    if count is None or row.method is None or not models:
        return False
    if not all(one.labels and one.head_parameters == count.value for one in models):
        return False
    usual = replace(settings_of(row), is_usual=True)
    return (
        row_verdict(row) != "nothing"
        and verdict(row.method, count, models, head="none", settings=usual) != "fits"
    )


@rule(
    "V212",
    "error",
    "table",
    needs=("trainable method", "trainable_share method"),
)
def nothing_frozen(group: Group) -> Iterator[tuple[str, str, str]]:
    """A method that freezes weights trains as many parameters as full fine-tuning.

    It starts at a share that is written as 100 %, or at a count that equals that of full
    fine-tuning, or the row's own total, in six digits or more. A count with fewer digits may be the
    size of the model, which is the same in every row.
    """
    full = group.full
    for row in group.partial():
        count, share = row.trainable, row.trainable_share
        if share is not None and share.low >= ALL:
            yield row.name, f"{share.text} of all parameters are trainable", UNFROZEN
        elif count is not None and count.digits >= EXACT_DIGITS:
            for other, whose in (
                (full.trainable if full else None, "those of full fine-tuning"),
                (row.total, "all that there are"),
            ):
                if other is not None and other.value == count.value:
                    yield row.name, f"{count.text} trainable parameters, {whose}", UNFROZEN
                    break


UNFROZEN = (
    "nothing was frozen: check that the method was applied (get_peft_model) to the model that "
    "was trained and counted"
)


@rule(
    "V213",
    "error",
    "table",
    needs=("trainable_share trainable total", "trainable_share trainable method"),
)
def share_contradicts(group: Group) -> Iterator[tuple[str, str, str]]:
    """The share of trainable parameters is not that of the counts beside it.

    It starts at 5 % of the share beyond what the written digits allow. The total may be given with
    or without the trained parameters; without a total it is what full fine-tuning trains.
    A count or total without its unit (`124.6`, or a total below a million) may be in thousands or
    millions: it is an error if no unit makes the share right.
    """
    for row in group.methods:
        count, share, total = row.trainable, row.trainable_share, _total(row, group)
        if count is None or share is None or total is None or not total.low:
            continue
        if is_quantized(row.method) and (row.total is None or row.total.digits < EXACT_DIGITS):
            continue  # PEFT counts packed weights: half as many as there are
        scaled = [_scaled(count, total, factor) for factor in _units(count, total)]
        if any(_fits(share, *one) for one in scaled):
            continue
        ratio = min(
            (own.value / of.value for own, of in scaled),
            key=lambda one: abs(math.log(max(one, 1e-12) / max(share.value, 1e-12))),
        )
        is_scaled = not math.isclose(ratio, count.value / total.value)
        unit = " (in the unit that fits best)" if is_scaled else ""
        fits = next(
            (
                other.name
                for other in group.methods
                if other is not row
                and other.trainable
                and other.trainable.text != count.text
                and _fits(share, other.trainable, _total(other, group) or total)
            ),
            None,
        )
        yield (
            row.name,
            f"{count.text} of {total.text} parameters{unit} are {ratio:.2%}, "
            f"not {100 * share.value:.4g} %" + (f", which is that of {fits}" if fits else ""),
            "compute the share again; the table may mix rows, or shares and percentages",
        )


def _units(count: RoundedCount, total: RoundedCount) -> Iterator[float]:
    """Yield what the total may be multiplied by, relative to the count: 1 if both have units."""
    for own in _factors(count, least=1e3):
        for of in _factors(total, least=1e6):
            if of * total.value >= own * count.value or (own, of) == (1.0, 1.0):
                yield of / own


def _factors(count: RoundedCount, least: float) -> tuple[float, ...]:
    """Return the units that a count without one may have: a fraction, or one below the least."""
    is_bare = not any(one.isalpha() for one in count.text)
    lacks_one = is_bare and count.value < 1e6 and ("." in count.text or count.value < least)
    return (1.0, 1e3, 1e6, 1e9) if lacks_one else (1.0,)


def _scaled(
    count: RoundedCount, total: RoundedCount, factor: float
) -> tuple[RoundedCount, RoundedCount]:
    return count, replace(
        total, value=total.value * factor, low=total.low * factor, high=total.high * factor
    )


def _total(row: ResultRow, group: Group) -> RoundedCount | None:
    return row.total or (group.full.trainable if group.full else None)


def _fits(share: RoundedCount, count: RoundedCount, total: RoundedCount) -> bool:
    """Whether a share may be that of the count, whatever the total includes."""
    if not total.low:
        return True
    lowest = count.low / (total.high + count.high) * (1 - SLACK)
    without = total.low - count.high
    highest = (count.high / without if without > count.high else 1.0) * (1 + SLACK)
    return share.high >= lowest and share.low <= highest


@rule("V214", "error", "table", needs=("trainable targets method",), rows=2)
def same_count_other_targets(group: Group) -> Iterator[tuple[str, str, str]]:
    """More target modules, but the same number of trainable parameters.

    Each further target adds a matrix. It starts at counts with three digits that are written alike,
    of one method and rank, where one row has all targets of the other and more.
    """
    for row in group.methods:
        for other in group.methods:
            if (
                row.method is not None
                and (row.method, row.rank) == (other.method, other.rank)
                and row.trainable
                and other.trainable
                and set(row.targets)
                and set(row.targets) < set(other.targets)
                and row.trainable.text == other.trainable.text
                and row.trainable.digits >= COMPARED_DIGITS
            ):
                yield (
                    f"{row.name}, {other.name}",
                    f"{row.trainable.text} trainable parameters for {'+'.join(row.targets)} and "
                    f"for {'+'.join(other.targets)}",
                    "count each configuration's own parameters",
                )


@rule("V215", "note", "table", needs=("trainable method architectures",), rows=2)
def head_on_one_side(group: Group) -> Iterator[tuple[str, str, str]]:
    """Some counts include the head and others do not, so they cannot be compared.

    Only counts with five digits or more are looked at (four of a whole number where another count
    has six), of methods with a closed form, that fit with the head or without it but not both ways.
    Where both ways are possible, usual settings decide. Full fine-tuning counts the head if its
    exact count tells the number of classes.
    """
    sides: dict[bool, list[str]] = {True: [], False: []}
    full = group.full
    if full is not None and full.trainable and _tells_head(full):
        sides[True].append(full.name)
    in_full = any(row.trainable and _is_exact(row.trainable) for row in group.methods)
    for row in group.partial():
        counts_head = _counts_head(row, in_full=in_full)
        if counts_head is not None:
            sides[counts_head].append(row.name)
    if all(sides.values()):
        yield (
            ", ".join(sides[False]),
            f"counted without the head, and {', '.join(sides[True])} with it",
            "count the same for every method: with the head, or without it",
        )


def _is_exact(count: RoundedCount) -> bool:
    return count.low == count.high and count.digits >= EXACT_DIGITS


def _counts_head(row: ResultRow, *, in_full: bool) -> bool | None:
    """Whether a count includes the head; None if that is unknown or both fit."""
    count = row.trainable
    if count is None or row.method is None or not count.value:
        return None
    if in_full and count.digits == HEAD_DIGITS - 1 and count.text.replace(",", "").isdigit():
        count = RoundedCount.exactly(count.value)  # 4,096,000
    elif count.digits < HEAD_DIGITS:
        return None
    found = _ways(row, count, settings_of(row))
    if len(found) > 1:
        found = _ways(row, count, replace(settings_of(row), is_usual=True))
    return found.pop() if len(found) == 1 else None


def _tells_head(full: ResultRow) -> bool:
    """Whether an exact count of full fine-tuning tells how many parameters the head has."""
    count = full.trainable
    return (
        count is not None
        and bool(full.architectures)
        and all(
            one.labels and count.value == one.encoder_parameters + one.head_parameters
            for one in full.architectures
        )
    )


def _ways(row: ResultRow, count: RoundedCount, settings: Settings) -> set[bool]:
    """Return whether a count fits with the head (True), and without it (False)."""
    found = set()
    for architecture in row.architectures:
        # Without a known number of classes there are two, as in most data sets.
        output = 0 if architecture.labels else CLASSES * (architecture.hidden + 1)
        head = architecture.head_parameters + output
        rest = replace(
            count, value=count.value - head, low=count.low - head, high=count.high - head
        )
        for own, counts_head in ((count, False), (rest, True)):
            if own.low <= 0:
                continue
            known = verdict(str(row.method), own, [architecture], head="none", settings=settings)
            if known == "fits":
                found.add(counts_head)
    return found
