"""What this run's figures recommend, and whether the difference is more than chance. Nothing here is known from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft_methods.comparing import Comparison, Row
from peft_methods.errors import OptionError, unknown
from peft_methods.metrics import METRICS
from peft_methods.standing import Pair, Standing

CLOSE = 0.01  # "within 1 point of the best"
MEMORY_UNITS: dict[str, float] = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
TIME_UNITS: dict[str, float] = {"s": 1, "min": 60, "h": 3600}
UNITS = {"memory": MEMORY_UNITS, "time": TIME_UNITS}
UNPAIRED = "test predictions to compare them by are missing"
METRIC_OF = {"memory": "peak_memory_bytes", "time": "train_seconds"}


@dataclass(frozen=True)
class Limit:
    """The most that a figure may be, as it was written ("8GB") and in base units (bytes, seconds)."""

    written: str
    most: float


Limits = dict[str, Limit]  # by "memory" and "time"; both may be missing


def parse_limits(text: str) -> Limits:
    """'memory=8GB,time=10min' -> limits. Raises `OptionError`."""
    limits: Limits = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise OptionError(
                f"--peft-budget {part.strip()!r} should read NAME=VALUE, for example memory=8GB,time=10min."
            )
        if name not in UNITS:
            raise OptionError(f"--peft-budget: {unknown('limit', name, UNITS)}")
        if name in limits:
            raise OptionError(f"--peft-budget names {name} twice; give one limit for each.")
        limits[name] = Limit(value, _quantity(name, value))
    return limits


def _quantity(name: str, text: str) -> float:
    """'8GB' -> 8e9. Units in any case where that leaves no doubt."""
    units = {unit.lower(): factor for unit, factor in UNITS[name].items()}
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)", text, re.ASCII)
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        example = "8GB" if name == "memory" else "10min"
        raise OptionError(
            f"--peft-budget {name}={text!r} should be a number above 0 with its unit, for example {example}. "
            f"Units: {', '.join(UNITS[name])}."
        )
    return float(match[1]) * units[match[2].lower()]


@dataclass(frozen=True)
class Recommendation:
    """An answer to one question. `method` is None where none qualifies; `against` is the pair that the answer rests on.

    `highest` is who has the best quality where `method` is a cheaper one that cannot be told from it.
    """

    recipe: str
    question: str
    method: str | None
    text: str
    against: Pair | None = None
    highest: str | None = None

    def __str__(self) -> str:
        return f"{self.question}: {self.text}"


@dataclass(frozen=True)
class _Field:
    """One recipe's methods within the limits, to choose from."""

    recipe: str
    rows: tuple[Row, ...]
    standing: Standing

    @property
    def metric(self) -> str:
        """What quality is called in a sentence."""
        return METRICS[self.standing.metric].title.lower()

    def cheapest(self, name: str, rows: Sequence[Row] | None = None) -> Row | None:
        """The row with the least of a figure; None where no row has it."""
        known = [row for row in (self.rows if rows is None else rows) if name in row.figures]
        return min(known, key=lambda row: row.mean(name)) if known else None

    def best(self) -> Row | None:
        """The row with the highest quality."""
        known = [row for row in self.rows if self.standing.metric in row.figures]
        return max(known, key=self.quality) if known else None

    def quality(self, row: Row) -> float:
        """The row's mean of what the recipe selects by."""
        return row.mean(self.standing.metric)

    def alike(self, best: Row) -> list[Row]:
        """Other rows that this run cannot tell from the best."""
        pairs = [
            (row, self.standing.pair(best.method, row.method))
            for row in self.rows
            if row is not best
        ]
        return [row for row, pair in pairs if pair is not None and not pair.is_separable]

    def overlapping(self, best: Row) -> list[Row]:
        """Other rows whose interval, that of their models on these examples, reaches the best one's."""
        known = self.standing.intervals
        if best.method not in known:
            return []
        return [
            row
            for row in self.rows
            if row is not best
            and row.method in known
            and known[row.method][1] >= known[best.method][0]
        ]

    def said(self, row: Row, name: str) -> str:
        """A figure in words."""
        return METRICS[name].format(row.mean(name))

    def distance(self, row: Row, best: Row) -> tuple[str, Pair | None]:
        """How far a row is from the best in quality, in words, and the pair that says so."""
        if math.isnan(self.quality(row)):
            return "its quality is not known", None
        if row is best:
            return f"{self.said(row, self.standing.metric)}, the highest", None
        pair = self.standing.pair(row.method, best.method)
        points = 100 * (self.quality(best) - self.quality(row))
        lacking = (
            "no spread over seeds to judge that by"
            if _of_one_seed(row, best)
            else f"not compared: {UNPAIRED}"
        )
        verdict = verdict_of(pair) if pair else lacking
        return (
            f"{self.said(row, self.standing.metric)}, {points:.1f} points below {best.title} ({verdict})",
            pair,
        )


def _of_one_seed(*rows: Row) -> bool:
    return any(len(row.seeds) < 2 for row in rows)


def verdict_of(pair: Pair) -> str:
    """The interval of a difference and what it means."""
    low, high = 100 * pair.low, 100 * pair.high
    if pair.is_separable and low * high > 0:
        return f"separable: {min(abs(low), abs(high)):.1f} to {max(abs(low), abs(high)):.1f}"
    return f"{'separable' if pair.is_separable else 'not separable'}: {low:+.1f} to {high:+.1f}"


def recommend(comparison: Comparison, limits: Limits | None = None) -> list[Recommendation]:
    """Every question's answer for every recipe of which anything is known; `limits` leaves out the methods beyond them."""
    rows, found = comparison.rows(), []
    for recipe, standing in comparison.standings.items():
        here = [row for row in rows if row.recipe == recipe and row.figures]
        fitting = tuple(row for row in here if _fits(comparison, row, limits or {}))
        field = _Field(recipe, fitting, standing)
        if len(here) > 1 and not fitting:
            found.append(_nothing_fits(here, recipe, limits or {}))
        elif len(here) > 1:
            found += [
                answer
                for question in _questions(limits or {})
                if (answer := question(field)) is not None
            ]
    return found


def _questions(limits: Limits) -> list[Callable[[_Field], Recommendation | None]]:
    within = f"Fits in {limits['memory'].written}" if "memory" in limits else "Least memory"
    return [
        _best_quality,
        lambda field: (
            _least(field, within, "peak_memory_bytes")
            if "memory" not in limits
            else _fitting(field, within)
        ),
        _fastest_close,
        lambda field: _least(field, "Smallest checkpoint", "checkpoint_bytes"),
    ]


def _fits(comparison: Comparison, row: Row, limits: Limits) -> bool:
    """Whether no seed of a method goes beyond a limit; what was not measured does not fit."""
    for name, limit in limits.items():
        figures = [
            record.metrics.get(METRIC_OF[name])
            for record in comparison.records
            if (record.recipe_name, record.method_name, record.status, record.is_source)
            == (row.recipe, row.method, "ok", False)
        ]
        if any(figure is None or not figure <= limit.most for figure in figures):
            return False
    return True


def _nothing_fits(rows: Sequence[Row], recipe: str, limits: Limits) -> Recommendation:
    least = []
    for name in limits:
        known = [row for row in rows if METRIC_OF[name] in row.figures]
        if known:
            row = min(known, key=lambda row: row.mean(METRIC_OF[name]))
            least.append(
                f"the least {name} is {row.title}'s, {METRICS[METRIC_OF[name]].format(row.mean(METRIC_OF[name]))}"
            )
    wanted = ", ".join(f"{name} {limit.written}" for name, limit in limits.items())
    return Recommendation(
        recipe,
        f"Within {wanted}",
        None,
        f"no method fits; {'; '.join(least) or 'nothing was measured'}.",
    )


def _best_quality(field: _Field) -> Recommendation | None:
    best = field.best()
    if best is None:
        return None
    said = f"{best.title}, {field.metric} {field.said(best, field.standing.metric)}"
    others = [row for row in field.rows if row is not best and not math.isnan(field.quality(row))]
    if not others:
        return Recommendation(
            field.recipe, "Best quality", best.method, f"{said}; no other within reach."
        )
    runner_up = max(others, key=field.quality)
    pair = field.standing.pair(best.method, runner_up.method)
    lead = f"{said}, {100 * (field.quality(best) - field.quality(runner_up)):.1f} points above {runner_up.title}"
    if pair is None:
        lead += (
            "; with one seed that may be chance"
            if _of_one_seed(best, runner_up)
            else f"; that may be chance: {UNPAIRED}"
        )
        overlapping = field.overlapping(best)
        if overlapping:
            return _the_cheaper(field, best, overlapping, lead, None)
        return Recommendation(field.recipe, "Best quality", best.method, f"{lead}.")
    alike = field.alike(best)
    lead += f" ({verdict_of(pair)})"
    if not alike:
        return Recommendation(
            field.recipe, "Best quality", best.method, f"{lead}, separable from every other.", pair
        )
    return _the_cheaper(field, best, alike, lead, pair)


def _the_cheaper(
    field: _Field, best: Row, alike: list[Row], lead: str, pair: Pair | None
) -> Recommendation:
    """The best and others that cannot be told from it: the one that costs least to train."""
    cheapest = field.cheapest("train_seconds", [best, *alike]) or best
    names = ", ".join(row.title for row in alike)
    if cheapest is best:
        text = f"{lead}. Not separable from {names}, and the cheapest of them to train."
        return Recommendation(field.recipe, "Best quality", best.method, text, pair)
    cost = f"{field.said(cheapest, 'train_seconds')} of training instead of {field.said(best, 'train_seconds')}"
    text = f"{lead}. Not separable from {names}: run more seeds, or take the cheapest of them, {cheapest.title} ({cost})."
    against = field.standing.pair(cheapest.method, best.method)
    return Recommendation(field.recipe, "Best quality", cheapest.method, text, against, best.method)


def _fitting(field: _Field, question: str) -> Recommendation | None:
    """Who is within the memory limit, the one of highest quality first."""
    best = field.best() or field.cheapest("peak_memory_bytes")
    if best is None:
        return None
    ordered = sorted(field.rows, key=lambda row: row is not best)
    names = ", ".join(f"{row.title} ({field.said(row, 'peak_memory_bytes')})" for row in ordered)
    return Recommendation(field.recipe, question, best.method, f"{names}.")


def _least(field: _Field, question: str, name: str) -> Recommendation | None:
    chosen, best = field.cheapest(name), field.best()
    if chosen is None:
        return None
    text = f"{chosen.title}, {field.said(chosen, name)}"
    if best is None:
        return Recommendation(field.recipe, question, chosen.method, f"{text}.")
    distance, pair = field.distance(chosen, best)
    return Recommendation(
        field.recipe,
        question,
        chosen.method,
        f"{text}; {METRICS[field.standing.metric].title.lower()} {distance}.",
        pair,
    )


def _fastest_close(field: _Field) -> Recommendation | None:
    best = field.best()
    if best is None:
        return None
    close = [row for row in field.rows if field.quality(row) >= field.quality(best) - CLOSE]
    chosen = field.cheapest("train_seconds", close)
    if chosen is None:
        return None
    distance, pair = field.distance(chosen, best)
    return Recommendation(
        field.recipe,
        "Fastest within 1 point of the best",
        chosen.method,
        f"{chosen.title}, {field.said(chosen, 'train_seconds')} of training; {field.metric} {distance}.",
        pair,
    )
