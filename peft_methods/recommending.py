"""Recommendations from one comparison's results, and whether each difference exceeds chance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

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
    """Upper limit of a metric, as written ("8GB") and in base units (bytes, seconds)."""

    written: str
    most: float


Limits = dict[str, Limit]  # keys "memory" and "time", both optional


def parse_limits(text: str) -> Limits:
    """Parse 'memory=8GB,time=10min'. Raises `OptionError`."""
    limits: Limits = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise OptionError(
                f"budget {part.strip()!r} must have the form NAME=VALUE, "
                "for example memory=8GB,time=10min.",
                setting="budget",
            )
        if name not in UNITS:
            raise OptionError(f"budget: {unknown('limit', name, UNITS)}", setting="budget")
        if name in limits:
            raise OptionError(f"budget has two limits for {name}; give only one.", setting="budget")
        limits[name] = Limit(value, _quantity(name, value))
    return limits


def _quantity(name: str, text: str) -> float:
    """Parse '8GB' as 8e9. Units are accepted in any case."""
    units = {unit.lower(): factor for unit, factor in UNITS[name].items()}
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)", text, re.ASCII)
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        example = "8GB" if name == "memory" else "10min"
        raise OptionError(
            f"budget {name}={text!r} must be a number above 0 with a unit, "
            f"for example {example}. Units: {', '.join(UNITS[name])}.",
            setting="budget",
        )
    return float(match[1]) * units[match[2].lower()]


class QuestionKind(Enum):
    """The question that a recommendation answers."""

    BEST_QUALITY = "best_quality"
    LEAST_MEMORY = "least_memory"
    FITS_IN_MEMORY = "fits_in_memory"  # asked instead of LEAST_MEMORY if memory is limited
    FASTEST_CLOSE_TO_BEST = "fastest_close_to_best"
    SMALLEST_CHECKPOINT = "smallest_checkpoint"
    WITHIN_LIMITS = "within_limits"  # asked only if no method is within the limits


QUESTIONS = {
    QuestionKind.BEST_QUALITY: "Best quality",
    QuestionKind.LEAST_MEMORY: "Least memory",
    QuestionKind.FITS_IN_MEMORY: "Fits in {memory}",
    QuestionKind.FASTEST_CLOSE_TO_BEST: "Fastest within 1 point of the best",
    QuestionKind.SMALLEST_CHECKPOINT: "Smallest checkpoint",
    QuestionKind.WITHIN_LIMITS: "Within {limits}",
}


@dataclass(frozen=True)
class Recommendation:
    """The answer to one question.

    `method` is None if no method qualifies. `against` is the comparison that the answer rests on.
    `highest` is the method of the highest quality if `method` is a cheaper one that is not
    separable from it.
    """

    recipe: str
    kind: QuestionKind
    question: str
    method: str | None
    text: str
    against: Pair | None = None
    highest: str | None = None

    def __str__(self) -> str:
        return f"{self.question}: {self.text}"


@dataclass(frozen=True)
class _Candidates:
    """The methods of one recipe that are within the limits."""

    recipe: str
    rows: tuple[Row, ...]
    standing: Standing
    limits: Limits

    def answer(
        self,
        kind: QuestionKind,
        method: str | None,
        text: str,
        against: Pair | None = None,
        highest: str | None = None,
    ) -> Recommendation:
        """Return a recommendation with the question's text."""
        question = _question(kind, self.limits)
        return Recommendation(self.recipe, kind, question, method, text, against, highest)

    @property
    def metric(self) -> str:
        """The quality metric's name, as used within a sentence."""
        return METRICS[self.standing.metric].title.lower()

    def cheapest(self, name: str, rows: Sequence[Row] | None = None) -> Row | None:
        """Return the row with the lowest value of a metric; None if no row has one."""
        known = [row for row in (self.rows if rows is None else rows) if name in row.figures]
        return min(known, key=lambda row: row.mean(name)) if known else None

    def best(self) -> Row | None:
        """Return the row with the highest quality."""
        known = [row for row in self.rows if self.standing.metric in row.figures]
        return max(known, key=self.quality) if known else None

    def quality(self, row: Row) -> float:
        """Return the row's mean of the recipe's selection metric."""
        return row.mean(self.standing.metric)

    def not_separable(self, best: Row) -> list[Row]:
        """Return the other rows that were compared with the best and are not separable from it."""
        pairs = [
            (row, self.standing.pair(best.method, row.method))
            for row in self.rows
            if row is not best
        ]
        return [row for row, pair in pairs if pair is not None and not pair.is_separable]

    def overlapping(self, best: Row) -> list[Row]:
        """Return the other rows whose interval overlaps that of the best.

        With one seed these are intervals of single models on these test examples.
        """
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

    def formatted(self, row: Row, name: str) -> str:
        """Format a row's mean of a metric with its unit."""
        return METRICS[name].format(row.mean(name))

    def distance(self, row: Row, best: Row) -> tuple[str, Pair | None]:
        """Describe how far a row's quality is from the best; also return the comparison used."""
        if math.isnan(self.quality(row)):
            return "its quality is not known", None
        if row is best:
            return f"{self.formatted(row, self.standing.metric)}, the highest", None
        pair = self.standing.pair(row.method, best.method)
        points = 100 * (self.quality(best) - self.quality(row))
        lacking = (
            "one seed: no spread to compare with"
            if _has_one_seed(row, best)
            else f"not compared: {UNPAIRED}"
        )
        verdict = verdict_of(pair) if pair else lacking
        quality = self.formatted(row, self.standing.metric)
        return f"{quality}, {points:.1f} points below {best.title} ({verdict})", pair


def _question(kind: QuestionKind, limits: Limits) -> str:
    """Format a question with the limits it mentions."""
    memory = limits["memory"].written if "memory" in limits else ""
    written = ", ".join(f"{name} {limit.written}" for name, limit in limits.items())
    return QUESTIONS[kind].format(memory=memory, limits=written)


def _has_one_seed(*rows: Row) -> bool:
    return any(len(row.seeds) < 2 for row in rows)


def verdict_of(pair: Pair) -> str:
    """Describe a comparison: whether it is separable, and the interval of its difference."""
    low, high = 100 * pair.low, 100 * pair.high
    if pair.is_separable and low * high > 0:
        return f"separable: {min(abs(low), abs(high)):.1f} to {max(abs(low), abs(high)):.1f}"
    return f"{'separable' if pair.is_separable else 'not separable'}: {low:+.1f} to {high:+.1f}"


def recommend(comparison: Comparison, limits: Limits | None = None) -> list[Recommendation]:
    """Answer every question for every recipe with at least two measured methods.

    Methods beyond the limits are left out.
    """
    rows, found, limits = comparison.rows(), list[Recommendation](), limits or {}
    for recipe, standing in comparison.standings.items():
        measured = [row for row in rows if row.recipe == recipe and row.figures]
        fitting = tuple(row for row in measured if _fits(comparison, row, limits))
        candidates = _Candidates(recipe, fitting, standing, limits)
        if len(measured) > 1 and not fitting:
            found.append(_nothing_fits(candidates, measured))
        elif len(measured) > 1:
            answers = [answer_of(candidates) for answer_of in _questions(limits)]
            found += [answer for answer in answers if answer is not None]
    return found


def _questions(limits: Limits) -> list[Callable[[_Candidates], Recommendation | None]]:
    """Return the functions that answer the questions, in the order of the answers."""
    return [
        _best_quality,
        _fitting if "memory" in limits else _least_memory,
        _fastest_close,
        _smallest_checkpoint,
    ]


def _fits(comparison: Comparison, row: Row, limits: Limits) -> bool:
    """Whether every seed of a method is within all limits. A missing measurement does not fit."""
    for name, limit in limits.items():
        values = [
            record.metrics.get(METRIC_OF[name])
            for record in comparison.records
            if (record.recipe_name, record.method_name, record.status, record.is_source)
            == (row.recipe, row.method, "ok", False)
        ]
        if any(value is None or not value <= limit.most for value in values):
            return False
    return True


def _nothing_fits(candidates: _Candidates, rows: Sequence[Row]) -> Recommendation:
    least = []
    for name in candidates.limits:
        row = candidates.cheapest(METRIC_OF[name], rows)
        if row is not None:
            value = candidates.formatted(row, METRIC_OF[name])
            least.append(f"the least {name} is {row.title}'s, {value}")
    text = f"no method fits; {'; '.join(least) or 'nothing was measured'}."
    return candidates.answer(QuestionKind.WITHIN_LIMITS, None, text)


def _best_quality(candidates: _Candidates) -> Recommendation | None:
    best, kind = candidates.best(), QuestionKind.BEST_QUALITY
    if best is None:
        return None
    value = candidates.formatted(best, candidates.standing.metric)
    lead = f"{best.title}, {candidates.metric} {value}"
    others = [
        row
        for row in candidates.rows
        if row is not best and not math.isnan(candidates.quality(row))
    ]
    if not others:
        return candidates.answer(kind, best.method, f"{lead}; no other method qualifies.")
    runner_up = max(others, key=candidates.quality)
    pair = candidates.standing.pair(best.method, runner_up.method)
    points = 100 * (candidates.quality(best) - candidates.quality(runner_up))
    lead += f", {points:.1f} points above {runner_up.title}"
    if pair is None:
        lead += (
            "; with one seed that may be chance"
            if _has_one_seed(best, runner_up)
            else f"; that may be chance: {UNPAIRED}"
        )
        overlapping = candidates.overlapping(best)
        if overlapping:
            return _cheapest_of(candidates, best, overlapping, lead, None)
        return candidates.answer(kind, best.method, f"{lead}.")
    alike = candidates.not_separable(best)
    lead += f" ({verdict_of(pair)})"
    if not alike:
        text = f"{lead}, separable from every other."
        return candidates.answer(kind, best.method, text, pair)
    return _cheapest_of(candidates, best, alike, lead, pair)


def _cheapest_of(
    candidates: _Candidates, best: Row, alike: list[Row], lead: str, pair: Pair | None
) -> Recommendation:
    """Recommend the method that trains fastest among the best and those not separable from it."""
    kind = QuestionKind.BEST_QUALITY
    cheapest = candidates.cheapest("train_seconds", [best, *alike]) or best
    names = ", ".join(row.title for row in alike)
    if cheapest is best:
        text = f"{lead}. Not separable from {names}, and the cheapest of them to train."
        return candidates.answer(kind, best.method, text, pair)
    own, highest = (candidates.formatted(row, "train_seconds") for row in (cheapest, best))
    text = (
        f"{lead}. Not separable from {names}: run more seeds, or take the cheapest of them, "
        f"{cheapest.title} ({own} of training instead of {highest})."
    )
    against = candidates.standing.pair(cheapest.method, best.method)
    return candidates.answer(kind, cheapest.method, text, against, best.method)


def _fitting(candidates: _Candidates) -> Recommendation | None:
    """List the methods within the memory limit, the one of the highest quality first."""
    best = candidates.best() or candidates.cheapest("peak_memory_bytes")
    if best is None:
        return None
    ordered = sorted(candidates.rows, key=lambda row: row is not best)
    names = [f"{row.title} ({candidates.formatted(row, 'peak_memory_bytes')})" for row in ordered]
    return candidates.answer(QuestionKind.FITS_IN_MEMORY, best.method, f"{', '.join(names)}.")


def _least_memory(candidates: _Candidates) -> Recommendation | None:
    return _least(candidates, QuestionKind.LEAST_MEMORY, "peak_memory_bytes")


def _smallest_checkpoint(candidates: _Candidates) -> Recommendation | None:
    return _least(candidates, QuestionKind.SMALLEST_CHECKPOINT, "checkpoint_bytes")


def _least(candidates: _Candidates, kind: QuestionKind, name: str) -> Recommendation | None:
    """Recommend the method with the lowest value of a metric, and describe its quality."""
    chosen, best = candidates.cheapest(name), candidates.best()
    if chosen is None:
        return None
    text = f"{chosen.title}, {candidates.formatted(chosen, name)}"
    if best is None:
        return candidates.answer(kind, chosen.method, f"{text}.")
    distance, pair = candidates.distance(chosen, best)
    return candidates.answer(kind, chosen.method, f"{text}; {candidates.metric} {distance}.", pair)


def _fastest_close(candidates: _Candidates) -> Recommendation | None:
    """Recommend the fastest method within `CLOSE` of the best quality."""
    best = candidates.best()
    if best is None:
        return None
    enough = candidates.quality(best) - CLOSE
    close = [row for row in candidates.rows if candidates.quality(row) >= enough]
    chosen = candidates.cheapest("train_seconds", close)
    if chosen is None:
        return None
    distance, pair = candidates.distance(chosen, best)
    text = (
        f"{chosen.title}, {candidates.formatted(chosen, 'train_seconds')} of training; "
        f"{candidates.metric} {distance}."
    )
    return candidates.answer(QuestionKind.FASTEST_CLOSE_TO_BEST, chosen.method, text, pair)
