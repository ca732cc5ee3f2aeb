"""Analysis and discussion, threats to validity, and the conclusion with what the figures recommend."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.recommending import QuestionKind, Recommendation
from peft_methods.report.paper.analysis import in_short, resolution
from peft_methods.report.paper.english import (
    capital,
    counted,
    joined,
    listed,
    number,
    points,
    said,
    sentence,
    tidy,
    was,
)
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped
from peft_methods.validity import RULES

MOST = 6
EVIDENCE = 3  # of one rule
COSTS = {"train_seconds": "training time", "peak_memory_bytes": "peak memory"}


def discussion(studies: Sequence[Study]) -> list[str]:
    """What the results mean together, then what may be wrong with them."""
    trades = [f"{_lead(study, studies)}{joined(*_trade(study))}" for study in studies]
    return ["== Quality Against Cost", *trades, "== Threats to Validity", *threats(studies)]


def _lead(study: Study, studies: Sequence[Study]) -> str:
    return f"_{study.name}_: " if len(studies) > 1 else ""


def _trade(study: Study) -> list[str]:
    """Who costs least among those that nothing tells from the best, and how fine this comparison can see."""
    if not study.measured:
        return ["No cell finished, so there is nothing to discuss."]
    if not study.is_compared:
        return [
            "Since quality is not compared, neither can it be set against cost; the costs stand for themselves."
        ]
    best = study.standing.order[0]
    level = [best, *(pair.second for pair in study.pairs_of(best) if not pair.is_separable)]
    if len(level) == 1:
        found = [
            f"{study.title(best)} is better than every other method that is compared, so its costs are what this quality takes."
        ]
    else:
        least = [text for name in COSTS if (text := _least(study, level, name))]
        of_them = f"; of these and {study.title(best)}, {listed(least)}" if least else ""
        found = [
            f"{study.titles(level[1:], MOST)} could not be told apart from {study.title(best)} in quality{of_them}."
        ]
        found += ["That two methods could not be told apart does not show that they are alike."]
    return [*found, _resolution(study)]


def _resolution(study: Study) -> str:
    width = resolution(study)
    return (
        f"The intervals of differences reach {points(width or 0.0)} points to either side in the median: differences much smaller than "
        f"that cannot be seen with {counted(len(study.seeds), 'seed')} and this test set."
    )


def _least(study: Study, methods: Sequence[str], name: str) -> str:
    """Among these methods, the first of which is the best, the least of a cost."""
    known = [row for row in study.known(name) if row.method in methods]
    if len(known) < 2 or said(name, known[0].mean(name)) == said(name, known[-1].mean(name)):
        return ""
    best = next((row for row in known if row.method == methods[0]), None)
    other = (
        f" against {said(name, best.mean(name))} of {study.title(best.method)}"
        if best is not None and best is not known[0]
        else ""
    )
    return f"{study.title(known[0].method)} has the least {COSTS[name]} ({said(name, known[0].mean(name))}{other})"


def threats(studies: Sequence[Study]) -> list[str]:
    """The limits of this comparison, what its rules found, what was said about the run, and what nobody looked at."""
    comparison = studies[0].comparison
    messages = dict.fromkeys(
        f"{r.method_name}, seed {r.seed}: {r.message}"
        for r in comparison.records
        if r.status == "ok" and r.message
    )
    notes = [f"- {sentence(escaped(tidy(note)))}" for note in (*comparison.notes, *messages)]
    silenced = [
        f"{rule} (“{escaped(RULES[rule].title.rstrip('.'))}”)" for rule in comparison.silenced
    ]
    parts = [joined(_scope(studies), _untuned(studies)), _findings(studies)]
    parts += ["Of the run itself is to be said:", "\n".join(notes)] if notes else []
    if silenced:
        parts.append(
            f"{capital(counted(len(silenced), 'rule'))} {was(len(silenced))} silenced, so nobody looked: {listed(silenced)}."
        )
    return parts


def _scope(studies: Sequence[Study]) -> str:
    models, data = (
        len({study.spec[part]["source"] for study in studies}) for part in ("model", "data")
    )
    one = ", of one size and one budget" if models == data == 1 else ""
    what = f"{counted(models, 'model')} and {counted(data, 'data set')}{one}"
    return f"This comparison is of {what}; nothing in it says how the methods do on others."


def _untuned(studies: Sequence[Study]) -> str:
    if any(record.tuning for study in studies for record in study.finished) or not any(
        study.has_quality for study in studies
    ):
        return ""
    return "Hyperparameters were not tuned in this run, so that a method may do worse here than it could."


def _findings(studies: Sequence[Study]) -> str:
    """Every rule that found something, with its evidence and advice."""
    comparison = studies[0].comparison
    asked = counted(len(RULES) - len(comparison.silenced), "validity rule")
    found: dict[str, dict[tuple[str, str], int]] = {}
    for finding in comparison.findings():
        evidence = found.setdefault(finding.rule, {})
        evidence[finding.evidence, finding.advice] = (
            evidence.get((finding.evidence, finding.advice), 0) + 1
        )
    if not found:
        return f"Of the {asked} that were asked, none found anything."
    lead = f"Of the {asked} that were asked, {number(len(found))} found something:"
    return "\n".join([lead, "", *(f"- {_rule(rule, told)}" for rule, told in found.items())])


def _rule(rule: str, told: dict[tuple[str, str], int]) -> str:
    """A rule with the first of its evidence, and the advice that came with it."""
    shown = [
        f"{escaped(evidence)}{f' ({number(count)} times)' if count > 1 else ''}"
        for (evidence, _), count in list(told.items())[:EVIDENCE]
    ]
    more = [f"{number(len(told) - EVIDENCE)} more of the kind"] if len(told) > EVIDENCE else []
    advice = next(advice for _, advice in told)
    return f"*{rule}* ({RULES[rule].severity}): {'; '.join([*shown, *more])}. Advice: {sentence(escaped(advice))}"


def conclusion(studies: Sequence[Study]) -> list[str]:
    """The finding again, and the recommendations."""
    parts = []
    for study in studies:
        parts.append(f"{_lead(study, studies)}{in_short(study)}")
        if study.answers:
            within = "".join(
                f", within {name} {escaped(limit.written)}" for name, limit in study.limits.items()
            )
            parts += [f"From these figures alone{within}, the following is recommended:"]
            parts += ["\n".join(f"+ {_answer(study, answer)}" for answer in study.answers)]
    return parts


def _answer(study: Study, answer: Recommendation) -> str:
    """A recommendation; for quality there is none where nothing was compared."""
    lead = f"_{escaped(answer.question)}_: "
    if (
        answer.kind is QuestionKind.BEST_QUALITY
        and answer.against is None
        and len(study.known(study.standing.metric)) > 1
    ):
        best = study.title(answer.method or "")
        return f"{lead}none is recommended; {best}, which has the highest figure, was not compared with the next."
    return lead + escaped(tidy(answer.text))
