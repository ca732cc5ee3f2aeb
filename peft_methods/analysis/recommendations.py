"""Recommendations from one comparison's results, and whether each difference exceeds chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from peft_methods.analysis.candidates import (
    UNPAIRED,
    Candidates,
    describe_comparison,
    has_one_seed,
)
from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.constraints import METRIC_OF, Constraints, reason_beyond
from peft_methods.analysis.margin import ROUNDING
from peft_methods.analysis.questions import QuestionKind, Recommendation


def recommend(comparison: Comparison, limits: Constraints | None = None) -> list[Recommendation]:
    """Answer every question for every recipe with at least two measured methods.

    Methods beyond the limits are left out, and so are methods with an error finding.
    """
    rows, found, limits = comparison.rows(), list[Recommendation](), limits or {}
    for recipe, ranking in comparison.rankings.items():
        own = [row for row in rows if row.recipe == recipe and row.method not in ranking.left_out]
        beyond = {row.title: why for row in own if (why := _reason_beyond(comparison, row, limits))}
        measured = [row for row in own if row.metrics]
        fitting = tuple(row for row in measured if row.title not in beyond)
        candidates = Candidates(recipe, fitting, ranking, limits)
        if len(measured) > 1 and not fitting:
            found.append(_nothing_fits(candidates, measured, beyond))
        elif len(measured) > 1:
            answers = [answer_of(candidates) for answer_of in _questions(limits)]
            found += [answer for answer in answers if answer is not None]
            found += [_beyond(candidates, beyond)] if beyond else []
    return found


def _questions(limits: Constraints) -> list[Callable[[Candidates], Recommendation | None]]:
    """Return the functions that answer the questions, in the order of the answers."""
    return [
        _best_quality,
        _fitting if "memory" in limits else _least_memory,
        _fastest_close,
        _smallest_checkpoint,
    ]


def _reason_beyond(comparison: Comparison, row: Row, limits: Constraints) -> str:
    """Return why a method is not within the limits, by its first seed that is not; or ''."""
    records = [
        record
        for record in comparison.records
        if record.role == "main"
        and (record.recipe_name, record.method_name) == (row.recipe, row.method)
    ]
    return reason_beyond(records, limits)


def _nothing_fits(
    candidates: Candidates, rows: Sequence[Row], beyond: Mapping[str, str]
) -> Recommendation:
    least = []
    for name in candidates.limits:
        row = candidates.cheapest(METRIC_OF[name], rows)
        if row is not None:
            value = candidates.formatted(row, METRIC_OF[name])
            least.append(f"the least {name} is {row.title}'s, {value}")
    known = "; ".join(least) or "nothing was measured"
    text = f"no method fits; {known}. Seeds beyond: {_reasons(beyond)}."
    return candidates.answer(QuestionKind.WITHIN_LIMITS, None, text)


def _beyond(candidates: Candidates, beyond: Mapping[str, str]) -> Recommendation:
    """Name the methods that are not within the limits, and why."""
    return candidates.answer(QuestionKind.WITHIN_LIMITS, None, f"not {_reasons(beyond)}.")


def _reasons(beyond: Mapping[str, str]) -> str:
    return ", ".join(f"{title} ({why})" for title, why in beyond.items())


def _best_quality(candidates: Candidates) -> Recommendation | None:
    best, kind = candidates.best(), QuestionKind.BEST_QUALITY
    if best is None:
        return None
    value = candidates.formatted(best, candidates.ranking.metric)
    lead = f"{best.title}, {candidates.metric} {value}"
    others = [
        row
        for row in candidates.rows
        if row is not best and not math.isnan(candidates.quality(row))
    ]
    if not others:
        return candidates.answer(kind, best.method, f"{lead}; no other method qualifies.")
    runner_up = max(others, key=candidates.merit)
    pair = candidates.ranking.pair(best.method, runner_up.method)
    gap = candidates.selected.gap(candidates.merit(best) - candidates.merit(runner_up))
    where = "above" if candidates.selected.sign() > 0 else "below"
    lead += f", {gap} {where} {runner_up.title}"
    if pair is not None:
        lead += f" ({describe_comparison(pair)})"
    elif has_one_seed(best, runner_up):
        lead += "; with one seed that may be chance"
    else:
        lead += f"; that may be chance: {UNPAIRED}"
    if alike := candidates.alike(best):
        return _cheapest_of(candidates, best, alike, lead)
    return candidates.answer(kind, best.method, f"{lead}{_than_others(candidates, best)}", pair)


def _than_others(candidates: Candidates, best: Row) -> str:
    """Say which other methods the best one is better than, and which it was not compared with."""
    others = candidates.not_compared(best)
    known = [row for row in candidates.rows if row is not best and row not in others]
    if not any(candidates.ranking.pair(best.method, row.method) for row in known):
        return "."
    if not others:
        return ", better than every other."
    single = [row.title for row in others if has_one_seed(best, row)]
    rest = [row.title for row in others if not has_one_seed(best, row)]
    reasons = []
    if has_one_seed(best):
        reasons.append(f"{best.title} has one seed")
    elif single:
        reasons.append(f"{', '.join(single)} {'has' if len(single) == 1 else 'have'} one seed")
    if rest:
        reasons.append(f"{', '.join(rest)}: {UNPAIRED}")
    return f", better than every other that is compared; {'; '.join(reasons)}."


def _cheapest_of(candidates: Candidates, best: Row, alike: list[Row], lead: str) -> Recommendation:
    """Recommend what trains fastest among the best and those equal to it, or perhaps as good."""
    equal = [row for row in candidates.equal(best) if row in alike]
    undecided = [row for row in alike if row not in equal]
    cheapest = candidates.cheapest("train_seconds", [best, *(equal or undecided)]) or best
    others = f" Undecided against {', '.join(row.title for row in undecided)}" if undecided else ""
    if equal:
        text = (
            f"{lead}. {_equal(candidates, best, equal, cheapest)}{f'{others}.' if others else ''}"
        )
    elif cheapest is best:
        text = f"{lead}.{others}, and the cheapest of them to train."
    else:
        own, highest = (candidates.formatted(row, "train_seconds") for row in (cheapest, best))
        text = (
            f"{lead}.{others}: run more seeds, or take the cheapest of them, "
            f"{cheapest.title} ({own} of training instead of {highest})."
        )
    against = candidates.ranking.pair(cheapest.method, best.method)
    highest_method = None if cheapest is best else best.method
    if against is None and cheapest is best:
        runner_up = max(alike, key=candidates.merit)
        against = candidates.ranking.pair(best.method, runner_up.method)
    kind = QuestionKind.BEST_QUALITY
    return candidates.answer(kind, cheapest.method, text, against, highest_method)


def _equal(candidates: Candidates, best: Row, equal: list[Row], cheapest: Row) -> str:
    """Say which methods are equal to the best within the margin, and which is the cheapest."""
    names, margin = ", ".join(row.title for row in equal), candidates.margin
    verb = "is" if len(equal) == 1 else "are"
    text = f"{names} {verb} equal to {best.title} within {margin}"
    if cheapest is best:
        return f"{text}; {best.title} is the cheapest of them to train."
    share = cheapest.mean("train_seconds") / best.mean("train_seconds")
    which = "it" if len(equal) == 1 else cheapest.title
    return f"{text}: {which} trains in {share:.0%} of the time."


def _fitting(candidates: Candidates) -> Recommendation | None:
    """List the methods within the memory limit, the one of the best quality first."""
    best = candidates.best() or candidates.cheapest("peak_memory_bytes")
    if best is None:
        return None
    ordered = sorted(candidates.rows, key=lambda row: row is not best)
    names = [f"{row.title} ({candidates.formatted(row, 'peak_memory_bytes')})" for row in ordered]
    return candidates.answer(QuestionKind.FITS_IN_MEMORY, best.method, f"{', '.join(names)}.")


def _least_memory(candidates: Candidates) -> Recommendation | None:
    return _least(candidates, QuestionKind.LEAST_MEMORY, "peak_memory_bytes")


def _smallest_checkpoint(candidates: Candidates) -> Recommendation | None:
    return _least(candidates, QuestionKind.SMALLEST_CHECKPOINT, "checkpoint_bytes")


def _least(candidates: Candidates, kind: QuestionKind, name: str) -> Recommendation | None:
    """Recommend the method with the lowest value of a metric, and describe its quality."""
    chosen, best = candidates.cheapest(name), candidates.best()
    if chosen is None:
        return None
    text = f"{chosen.title}, {candidates.formatted(chosen, name)}"
    if best is None:
        return candidates.answer(kind, chosen.method, f"{text}.")
    distance, pair = candidates.distance(chosen, best)
    return candidates.answer(kind, chosen.method, f"{text}; {candidates.metric} {distance}.", pair)


def _fastest_close(candidates: Candidates) -> Recommendation | None:
    """Recommend the fastest method whose mean is within the margin of the best quality."""
    best = candidates.best()
    if best is None:
        return None
    enough = candidates.merit(best) - candidates.ranking.margin - ROUNDING
    close = [row for row in candidates.rows if candidates.merit(row) >= enough]
    chosen = candidates.cheapest("train_seconds", close)
    if chosen is None:
        return None
    distance, pair = candidates.distance(chosen, best)
    text = (
        f"{chosen.title}, {candidates.formatted(chosen, 'train_seconds')} of training; "
        f"{candidates.metric} {distance}."
    )
    return candidates.answer(QuestionKind.FASTEST_CLOSE_TO_BEST, chosen.method, text, pair)
