"""Statements on quality that the statistics allow: only separable pairs are better and worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from peft_methods.analysis.margin import margin_text
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.analysis.ranking import NotCompared
from peft_methods.methods.registry import METHODS
from peft_methods.report.paper.english import (
    capital,
    formatted,
    gap,
    interval,
    joined,
    listed,
    number,
    p_value,
    with_spread,
)
from peft_methods.report.paper.study import Study

MOST = 6  # methods in one sentence
# Reason -> its wording for one method, for several methods, and the consequence.
WHY_LEFT_OUT = {
    NotCompared.ONE_SEED: (
        "was trained with one seed",
        "were trained with one seed each",
        "so the spread over seeds is unknown, and no claim of better or worse is made",
    ),
    NotCompared.OTHER_EXAMPLES: (
        "was tested on different examples than the rest",
        "were tested on different examples than the rest",
        "so no comparison is made",
    ),
    NotCompared.NO_PREDICTIONS: (
        "has no predictions stored with its records",
        "have no predictions stored with their records",
        "so an example-by-example comparison is not possible, and no claim of better or worse is "
        "made",
    ),
}


def quality(study: Study) -> list[str]:
    """Return paragraphs on quality.

    They give the range of means, the separable and inseparable pairs, and the excluded methods.
    """
    if not study.has_quality:
        return [no_quality(study)]
    if not study.is_compared:
        return [joined(_range(study), *_left_out(study), _alone(study))]
    paragraphs = [
        joined(_range(study), _count(study), *_about_best(study)),
        joined(*_against_full(study), *_others(study)),
        joined(*_left_out(study)),
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


def no_quality(study: Study) -> str:
    """Explain why there is no statement on quality."""
    if not study.settings.has_quality:
        return (
            "The weights of the model are random, so quality has no meaning: only costs are "
            "compared."
        )
    return (
        "No run yielded a quality figure, so quality is not reported."
        if study.measured
        else "No run yielded any figures."
    )


def in_short(study: Study) -> str:
    """Return the finding on quality in one or two sentences, without intervals.

    The abstract and the conclusion use it.
    """
    if not study.has_quality:
        return no_quality(study)
    if not study.is_compared:
        return joined(_range(study), *_left_out(study), _alone(study))
    best, above, level = _best(study)
    lead = f"In {study.metric}, {study.title(best)} has {_highest(study)} ({study.mean(best)})"
    alike = study.titles((pair.second for pair in level), MOST)
    if not above:
        return f"{lead}, but is not separable from {alike}."
    better = f"{lead} and is better than {study.titles((pair.second for pair in above), MOST)}"
    return f"{better}; it is not separable from {alike}." if level else f"{better}."


def resolution(study: Study) -> float | None:
    """Return the median half-width of the intervals of differences over pairs (0..1)."""
    return (
        median((pair.high - pair.low) / 2 for pair in study.ranking.pairs)
        if study.is_compared
        else None
    )


def better_by(pair: PairwiseComparison) -> str:
    """Format the difference of a separable pair, seen from the better method."""
    equals = "" if pair.p < 0.001 else "\\= "
    return (
        f"by {gap(pair.metric, abs(pair.difference))}, 95% interval {_ends(pair)}, "
        f"_p_ {equals}{p_value(pair.p)}"
    )


def _worse_by(pair: PairwiseComparison) -> str:
    return better_by(pair.reversed())


def alike_by(pair: PairwiseComparison) -> str:
    """Format the difference of a pair that is not separable."""
    return f"difference {gap(pair.metric, pair.difference)}, 95% interval {_ends(pair)}"


def _ends(pair: PairwiseComparison) -> str:
    return interval(pair.metric, pair.low, pair.high)


def _range(study: Study) -> str:
    name, known = study.ranking.metric, study.known(study.ranking.metric)
    low, high = (formatted(name, row.mean(name)) for row in (known[0], known[-1]))
    what = (
        f"{'mean ' if any(row.metrics[name].count > 1 for row in known) else ''}test {study.metric}"
    )
    if len(known) == 1:
        reached = with_spread(name, known[0].metrics[name])
        return f"{study.title(known[0].method)} reached a test {study.metric} of {reached}."
    if low == high:
        return f"{capital(what)} is {low} for every method."
    lowest, highest = study.title(known[0].method), study.title(known[-1].method)
    return f"{capital(what)} ranges from {low} ({lowest}) to {high} ({highest})."


def _highest(study: Study) -> str:
    """Return 'the highest mean', worded for two methods, for ties, and for excluded methods."""
    order = study.ranking.order
    others = any(row.method not in order for row in study.known(study.ranking.metric))
    if study.mean(order[0]) == study.mean(order[1]):
        return f"a mean as high as any{' of the compared methods' * others}"
    rank = "higher" if len(order) == 2 else "highest"
    if study.quality.sign() < 0:
        rank = "lower" if len(order) == 2 else "lowest"
    return f"the {rank} mean{' of the compared methods' * others}"


def _count(study: Study) -> str:
    every = len(study.ranking.pairs)
    separable = sum(pair.is_separable for pair in study.ranking.pairs)
    if every == 1:
        return ""
    if not separable:
        return (
            f"None of the {number(every)} pairs of methods is separable: this comparison shows no "
            "difference in quality between any two methods."
        )
    which = "All" if separable == every else capital(number(separable))
    verb = "is" if separable == 1 else "are"
    return (
        f"{which} of the {number(every)} pairs of methods {verb} separable (@t-best-{study.label})."
    )


def _best(study: Study) -> tuple[str, list[PairwiseComparison], list[PairwiseComparison]]:
    """Return the method with the highest mean, its separable pairs, and its inseparable pairs."""
    pairs = list(study.pairs_of(study.ranking.order[0]))
    return (
        study.ranking.order[0],
        [p for p in pairs if p.is_separable],
        [p for p in pairs if not p.is_separable],
    )


def _about_best(study: Study) -> list[str]:
    best, above, level = _best(study)
    subject = f"{study.title(best)}, which has {_highest(study)},"
    found = [f"{subject} is better than {_each(study, above, better_by)}."] * bool(above)
    return found + [
        f"{'It' if found or number else subject} {text}."
        for number, text in enumerate(_alike(study, level))
    ]


def _alike(study: Study, level: Sequence[PairwiseComparison]) -> list[str]:
    """Say which methods are equal within the margin, and which are not separable otherwise."""
    equal = [pair for pair in level if pair.is_equal]
    undecided = [pair for pair in level if not pair.is_equal]
    margin = margin_text(study.ranking.margin, study.quality)
    return [
        *[f"is equal within {margin} to {_each(study, equal, alike_by)}"] * bool(equal),
        *[f"is not separable from {_each(study, undecided, alike_by)}"] * bool(undecided),
    ]


def _each(
    study: Study, pairs: Sequence[PairwiseComparison], words: Callable[[PairwiseComparison], str]
) -> str:
    """List the second method of each pair, with the pair's figures."""
    return listed([f"{study.title(pair.second)} ({words(pair)})" for pair in pairs], MOST)


def _against_full(study: Study) -> list[str]:
    """Compare full fine-tuning with every method but the best, which is covered before."""
    order = study.ranking.order
    if METHODS.reference not in order[1:] or len(order) < 3:
        return []
    pairs = [pair for pair in study.pairs_of(METHODS.reference) if pair.second != order[0]]
    below = [pair for pair in pairs if pair.is_separable and pair.difference > 0]
    above = [pair for pair in pairs if pair.is_separable and pair.difference < 0]
    level = [pair for pair in pairs if not pair.is_separable]
    found = [f"it is better than {_each(study, below, better_by)}"] * bool(below)
    found += [f"it is worse than {_each(study, above, _worse_by)}"] * bool(above)
    found += [f"it {text}" for text in _alike(study, level)]
    return [f"As for full fine-tuning, {'; '.join(found)}."]


def _others(study: Study) -> list[str]:
    """Describe the separable pairs without the best method and full fine-tuning.

    They are grouped by the worse method.
    """
    covered, worse = (
        {study.ranking.order[0], METHODS.reference},
        dict[str, list[PairwiseComparison]](),
    )
    for pair in study.ranking.pairs:  # in the order of means: the first is the better one
        if pair.is_separable and not covered & {pair.first, pair.second}:
            worse.setdefault(pair.second, []).append(pair.reversed())
    count = sum(len(pairs) for pairs in worse.values())
    if count > 2 * MOST:
        return [
            f"Of the other pairs, {number(count)} are separable; the letters in "
            f"@t-main-{study.label} show which ones."
        ]
    return [
        f"{study.title(method)} is worse than {_each(study, pairs, _worse_by)}."
        for method, pairs in worse.items()
    ]


def _left_out(study: Study) -> list[str]:
    """Return one sentence per reason that methods are not compared."""
    found = []
    for reason in dict.fromkeys(study.ranking.not_compared.values()):
        methods = [
            row.method
            for row in study.measured
            if study.ranking.not_compared.get(row.method) is reason
        ]
        if methods and len(study.measured) > 1:
            one, many, so = WHY_LEFT_OUT[reason]
            every = len(methods) == len(study.measured)
            names = "All methods" if every else study.titles(methods, MOST)
            found.append(f"{names} {one if len(methods) == 1 else many}, {so}.")
    return found


def _alone(study: Study) -> str:
    return (
        "With one method there is nothing to compare."
        if len(study.known(study.ranking.metric)) == 1
        else ""
    )
