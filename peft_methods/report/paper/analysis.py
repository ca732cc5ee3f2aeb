"""What the statistics allow to be said of quality. Only separable pairs are told as better and worse."""

from __future__ import annotations

from statistics import median

from peft_methods.report.paper.english import interval, listed, number, p_value, points, said, with_spread
from peft_methods.report.paper.study import FULL, Study
from peft_methods.report.paper.typst import escaped
from peft_methods.standing import Pair

MOST = 6  # methods in one sentence
WHY_LEFT_OUT = {
    "one seed: no spread": (
        "was trained with one seed",
        "were trained with one seed each",
        "so the spread over seeds is not known, and no claim is made of being better or worse",
    ),
    "other test examples": ("was tested on other examples than the rest", "were tested on other examples than the rest", "so no comparison is made"),
    "no predictions": (
        "has no predictions kept with its records",
        "have no predictions kept with their records",
        "so a comparison example by example is not possible, and none is claimed",
    ),
}


def quality(study: Study) -> list[str]:
    """Paragraphs: the range of means, what is separable and what is not, and who is not compared."""
    if not study.has_quality:
        return [no_quality(study)]
    first = [_range(study)]
    if study.is_compared:
        first += [_count(study), *_about_best(study)]
        rest = [*_against_full(study), *_others(study)]
        return [" ".join(first), *([" ".join(rest)] if rest else []), *_left_out(study)]
    return [" ".join([*first, *_left_out(study), *_alone(study)])]


def no_quality(study: Study) -> str:
    """Why nothing is said of quality."""
    if study.spec["model"]["weights"] == "random":
        return "The weights of the model were drawn at random, so there is no quality to judge: this comparison is of costs alone."
    return "No cell yielded a figure of quality, so nothing is said of it." if study.measured else "No cell yielded any figures."


def best_in_short(study: Study) -> str:
    """For abstract and conclusion: the finding on quality in a sentence or two, without intervals."""
    if not study.has_quality:
        return no_quality(study)
    if not study.is_compared:
        return " ".join([_range(study), *(_left_out(study) or _alone(study))])
    best, above, level = _best(study)
    mean = f"{study.title(best)} has the highest mean {study.metric} ({_mean(study, best)})"
    if not above:
        return f"{mean}, but could not be told apart from {listed([study.title(p.second) for p in level], MOST)}."
    better = f"{mean} and is better than {listed([study.title(p.second) for p in above], MOST)}"
    return f"{better}." if not level else f"{better}; it could not be told apart from {listed([study.title(p.second) for p in level], MOST)}."


def resolution(study: Study) -> float | None:
    """Half the width of the intervals of differences, in the median over pairs (0..1)."""
    return median((pair.high - pair.low) / 2 for pair in study.standing.pairs) if study.is_compared else None


def better_by(pair: Pair) -> str:
    """Of a separable pair seen from the better one."""
    return f"by {points(pair.difference)} points, 95% interval {interval(pair.low, pair.high)}, {p_value(pair.p)}"


def alike(pair: Pair) -> str:
    """Of a pair that is not separable."""
    return f"difference {points(pair.difference)} points, 95% interval {interval(pair.low, pair.high)}"


def _mean(study: Study, method: str) -> str:
    row = study.row(method)
    assert row is not None, "whoever is compared has a row"
    return said(study.standing.metric, row.mean(study.standing.metric))


def _range(study: Study) -> str:
    known = study.known(study.standing.metric)
    low, high = known[0], known[-1]
    if len(known) == 1:
        return f"{study.title(low.method)} reached a test {study.metric} of {with_spread(study.standing.metric, low.figures[study.standing.metric])}."
    what = "Mean test" if any(row.figures[study.standing.metric].count > 1 for row in known) else "Test"
    ends = [f"{_mean(study, row.method)} ({study.title(row.method)})" for row in (low, high)]
    return f"{what} {study.metric} lies between {ends[0]} and {ends[1]}."


def _count(study: Study) -> str:
    pairs = study.standing.pairs
    apart = sum(pair.is_separable for pair in pairs)
    if len(pairs) == 1:
        return ""
    if not apart:
        return f"None of the {number(len(pairs))} pairs of methods is separable: this comparison does not tell any method from another."
    which = "All" if apart == len(pairs) else number(apart).capitalize()
    return f"{which} of the {number(len(pairs))} pairs of methods {'is' if apart == 1 else 'are'} separable (@t-best-{study.label})."


def _best(study: Study) -> tuple[str, list[Pair], list[Pair]]:
    """The method of the highest mean, the pairs in which it is better, and those that are not separable."""
    pairs = list(study.pairs_of(study.standing.order[0]))
    return study.standing.order[0], [p for p in pairs if p.is_separable], [p for p in pairs if not p.is_separable]


def _about_best(study: Study) -> list[str]:
    best, above, level = _best(study)
    found = []
    if above:
        found.append(f"{study.title(best)}, which has the highest mean, is better than {_each(study, above, better_by)}.")
    if level:
        who = "It" if above else f"{study.title(best)}, which has the highest mean,"
        found.append(f"{who} could not be told apart from {_each(study, level, alike)}.")
    return found


def _each(study: Study, pairs: list[Pair], words: object) -> str:
    assert callable(words)
    return listed([f"{study.title(pair.second)} ({words(pair)})" for pair in pairs], MOST)


def _against_full(study: Study) -> list[str]:
    """Full fine-tuning against all but the best, which has been told."""
    order = study.standing.order
    if FULL not in order[1:] or len(order) < 3:
        return []
    pairs = [pair for pair in study.pairs_of(FULL) if pair.second != order[0]]
    below, above = [p for p in pairs if p.is_separable and p.difference > 0], [p for p in pairs if p.is_separable and p.difference < 0]
    level = [pair for pair in pairs if not pair.is_separable]
    found = [f"it is better than {_each(study, below, better_by)}"] * bool(below)
    found += [f"it is worse than {listed([f'{study.title(p.second)} ({better_by(p.turned())})' for p in above], MOST)}"] * bool(above)
    found += [f"it could not be told apart from {_each(study, level, alike)}"] * bool(level)
    return [f"As for full fine-tuning, {'; '.join(found)}."]


def _others(study: Study) -> list[str]:
    """Separable pairs without the best or full fine-tuning, by the one that is worse."""
    told = {study.standing.order[0], FULL}
    worse: dict[str, list[Pair]] = {}
    for pair in study.standing.pairs:  # in order of means: the first is the better one
        if pair.is_separable and not told & {pair.first, pair.second}:
            worse.setdefault(pair.second, []).append(pair)
    return [
        f"{study.title(method)} is worse than {listed([f'{study.title(p.first)} ({better_by(p)})' for p in pairs], MOST)}."
        for method, pairs in list(worse.items())[-MOST:]
    ]


def _left_out(study: Study) -> list[str]:
    """Who is not compared and why, a sentence a reason."""
    found = []
    for reason in dict.fromkeys(study.standing.left_out.values()):
        who = [row for row in study.measured if study.standing.left_out.get(row.method) == reason]
        if who and len(study.measured) > 1:
            one, many, so = WHY_LEFT_OUT.get(reason, (f"is left out: {escaped(reason)}", f"are left out: {escaped(reason)}", "no comparison is made"))
            names = "All methods" if len(who) == len(study.measured) else listed([study.title(row.method) for row in who], MOST)
            found.append(f"{names} {one if len(who) == 1 else many}, {so}.")
    return found


def _alone(study: Study) -> list[str]:
    return ["With one method there is nothing to compare."] if len(study.known(study.standing.metric)) == 1 else []

