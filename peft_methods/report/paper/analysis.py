"""What the statistics allow to be said of quality. Only separable pairs are told as better and worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from peft_methods.report.paper.english import (
    capital,
    interval,
    joined,
    listed,
    number,
    p_value,
    points,
    said,
    with_spread,
)
from peft_methods.report.paper.study import FULL, Study
from peft_methods.standing import NotCompared, Pair

MOST = 6  # methods in one sentence
WHY_LEFT_OUT = {  # of one method, of several, and what follows
    NotCompared.ONE_SEED: (
        "was trained with one seed",
        "were trained with one seed each",
        "so the spread over seeds is not known, and no claim is made of being better or worse",
    ),
    NotCompared.OTHER_EXAMPLES: (
        "was tested on other examples than the rest",
        "were tested on other examples than the rest",
        "so no comparison is made",
    ),
    NotCompared.NO_PREDICTIONS: (
        "has no predictions kept with its records",
        "have no predictions kept with their records",
        "so no comparison example by example is possible, and no claim is made of being better or worse",
    ),
}


def quality(study: Study) -> list[str]:
    """Paragraphs: the range of means, what is separable and what is not, and who is not compared."""
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
    """Why nothing is said of quality."""
    if study.spec["model"]["weights"] == "random":
        return "The weights of the model were drawn at random, so there is no quality to judge: this comparison is of costs alone."
    return (
        "No cell yielded a figure of quality, so nothing is said of it."
        if study.measured
        else "No cell yielded any figures."
    )


def in_short(study: Study) -> str:
    """For abstract and conclusion: the finding on quality in a sentence or two, without intervals."""
    if not study.has_quality:
        return no_quality(study)
    if not study.is_compared:
        return joined(_range(study), *_left_out(study), _alone(study))
    best, above, level = _best(study)
    lead = f"In {study.metric}, {study.title(best)} has {_highest(study)} ({study.mean(best)})"
    alike = study.titles((pair.second for pair in level), MOST)
    if not above:
        return f"{lead}, but could not be told apart from {alike}."
    better = f"{lead} and is better than {study.titles((pair.second for pair in above), MOST)}"
    return f"{better}; it could not be told apart from {alike}." if level else f"{better}."


def resolution(study: Study) -> float | None:
    """Half the width of the intervals of differences, in the median over pairs (0..1)."""
    return (
        median((pair.high - pair.low) / 2 for pair in study.standing.pairs)
        if study.is_compared
        else None
    )


def better_by(pair: Pair) -> str:
    """Of a separable pair seen from the better one."""
    equals = "" if pair.p < 0.001 else "\\= "
    return f"by {points(pair.difference)} points, 95% interval {interval(pair.low, pair.high)}, _p_ {equals}{p_value(pair.p)}"


def alike_by(pair: Pair) -> str:
    """Of a pair that is not separable."""
    return (
        f"difference {points(pair.difference)} points, 95% interval {interval(pair.low, pair.high)}"
    )


def _range(study: Study) -> str:
    name, known = study.standing.metric, study.known(study.standing.metric)
    low, high = (said(name, row.mean(name)) for row in (known[0], known[-1]))
    what = (
        f"{'mean ' if any(row.figures[name].count > 1 for row in known) else ''}test {study.metric}"
    )
    if len(known) == 1:
        return f"{study.title(known[0].method)} reached a test {study.metric} of {with_spread(name, known[0].figures[name])}."
    if low == high:
        return f"{capital(what)} is {low} with every method."
    return f"{capital(what)} lies between {low} ({study.title(known[0].method)}) and {high} ({study.title(known[-1].method)})."


def _highest(study: Study) -> str:
    """'the highest mean', as is right for two methods, for several that share it, and where some are not compared."""
    order = study.standing.order
    others = any(row.method not in order for row in study.known(study.standing.metric))
    if study.mean(order[0]) == study.mean(order[1]):
        return f"a mean as high as any{' of those compared' * others}"
    return f"the {'higher' if len(order) == 2 else 'highest'} mean{' of those compared' * others}"


def _count(study: Study) -> str:
    every, apart = (
        len(study.standing.pairs),
        sum(pair.is_separable for pair in study.standing.pairs),
    )
    if every == 1:
        return ""
    if not apart:
        return f"None of the {number(every)} pairs of methods is separable: this comparison does not tell any method from another."
    which = "All" if apart == every else capital(number(apart))
    return f"{which} of the {number(every)} pairs of methods {'is' if apart == 1 else 'are'} separable (@t-best-{study.label})."


def _best(study: Study) -> tuple[str, list[Pair], list[Pair]]:
    """The method of the highest mean, the pairs in which it is better, and those that are not separable."""
    pairs = list(study.pairs_of(study.standing.order[0]))
    return (
        study.standing.order[0],
        [p for p in pairs if p.is_separable],
        [p for p in pairs if not p.is_separable],
    )


def _about_best(study: Study) -> list[str]:
    best, above, level = _best(study)
    who = f"{study.title(best)}, which has {_highest(study)},"
    found = [f"{who} is better than {_each(study, above, better_by)}."] * bool(above)
    return found + [
        f"{'It' if above else who} could not be told apart from {_each(study, level, alike_by)}."
    ] * bool(level)


def _each(study: Study, pairs: Sequence[Pair], words: Callable[[Pair], str]) -> str:
    """The second of each pair, with the pair's figures."""
    return listed([f"{study.title(pair.second)} ({words(pair)})" for pair in pairs], MOST)


def _against_full(study: Study) -> list[str]:
    """Full fine-tuning against all but the best, which has been told."""
    order = study.standing.order
    if FULL not in order[1:] or len(order) < 3:
        return []
    pairs = [pair for pair in study.pairs_of(FULL) if pair.second != order[0]]
    below = [pair for pair in pairs if pair.is_separable and pair.difference > 0]
    above = [pair for pair in pairs if pair.is_separable and pair.difference < 0]
    level = [pair for pair in pairs if not pair.is_separable]
    found = [f"it is better than {_each(study, below, better_by)}"] * bool(below)
    found += [
        f"it is worse than {_each(study, above, lambda pair: better_by(pair.turned()))}"
    ] * bool(above)
    found += [f"it could not be told apart from {_each(study, level, alike_by)}"] * bool(level)
    return [f"As for full fine-tuning, {'; '.join(found)}."]


def _others(study: Study) -> list[str]:
    """Separable pairs without the best or full fine-tuning, by the one that is worse."""
    told, worse = {study.standing.order[0], FULL}, dict[str, list[Pair]]()
    for pair in study.standing.pairs:  # in the order of means: the first is the better one
        if pair.is_separable and not told & {pair.first, pair.second}:
            worse.setdefault(pair.second, []).append(pair.turned())
    count = sum(len(pairs) for pairs in worse.values())
    if count > 2 * MOST:
        return [
            f"Of the other pairs, {number(count)} are separable; the letters in @t-main-{study.label} show which."
        ]
    return [
        f"{study.title(method)} is worse than {_each(study, pairs, lambda pair: better_by(pair.turned()))}."
        for method, pairs in worse.items()
    ]


def _left_out(study: Study) -> list[str]:
    """Who is not compared and why, a sentence a reason."""
    found = []
    for reason in dict.fromkeys(study.standing.left_out.values()):
        who = [
            row.method
            for row in study.measured
            if study.standing.left_out.get(row.method) is reason
        ]
        if who and len(study.measured) > 1:
            one, many, so = WHY_LEFT_OUT[reason]
            names = "All methods" if len(who) == len(study.measured) else study.titles(who, MOST)
            found.append(f"{names} {one if len(who) == 1 else many}, {so}.")
    return found


def _alone(study: Study) -> str:
    return (
        "With one method there is nothing to compare."
        if len(study.known(study.standing.metric)) == 1
        else ""
    )
