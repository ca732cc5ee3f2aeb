"""Analysis and discussion, threats to validity, and the conclusion with what the figures recommend."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.recommending import Recommendation
from peft_methods.report.paper.analysis import best_in_short, resolution
from peft_methods.report.paper.english import counted, listed, number, points, said, sentence, tidy
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped
from peft_methods.validity import RULES

MOST = 6
EVIDENCE = 3  # of one rule


def discussion(studies: Sequence[Study]) -> list[str]:
    """What the results mean together, then what may be wrong with them."""
    parts = ["== Quality Against Cost"]
    for study in studies:
        lead = f"_{study.name}_: " if len(studies) > 1 else ""
        parts.append(lead + " ".join(_trade(study)))
    return [*parts, "== Threats to Validity", *threats(studies)]


def _trade(study: Study) -> list[str]:
    """Who costs least among those that nothing tells from the best, and how fine this comparison can see."""
    if not study.is_compared:
        return ["Since quality is not compared, neither can it be set against cost; the costs stand for themselves."]
    best = study.standing.order[0]
    level = [best, *(pair.second for pair in study.pairs_of(best) if not pair.is_separable)]
    if len(level) == 1:
        found = [f"{study.title(best)} is better than every other method here, so its costs are what this quality takes."]
    else:
        found = [f"{number(len(level)).capitalize()} methods ({listed([study.title(m) for m in level], MOST)}) include the highest mean or could not be told from it."]
        found += [text for name, what in (("train_seconds", "training time"), ("peak_memory_bytes", "peak memory")) if (text := _least(study, level, name, what))]
        found.append("That two methods could not be told apart does not show that they are alike.")
    width = resolution(study)
    if width is not None:
        found.append(
            f"The intervals of differences reach {points(width)} points to either side in the median: differences much smaller than that cannot be seen "
            f"with {counted(len(study.seeds), 'seed')} and this test set."
        )
    return found


def _least(study: Study, methods: Sequence[str], name: str, what: str) -> str:
    """Among these methods, the least of a cost."""
    known = [row for row in study.known(name) if row.method in methods]
    if len(known) < 2:
        return ""
    least, best = known[0], study.row(methods[0])
    if least is best or best is None or name not in best.figures:
        return f"Of these, {study.title(least.method)} has the least {what} ({said(name, least.mean(name))})."
    return (
        f"Of these, {study.title(least.method)} has the least {what} ({said(name, least.mean(name))}, against {said(name, best.mean(name))} of "
        f"{study.title(best.method)})."
    )


def threats(studies: Sequence[Study]) -> list[str]:
    """The limits of this comparison, what its rules found, what was said about the run, and what nobody looked at."""
    comparison = studies[0].comparison
    scope = [_scope(studies), *_untuned(studies)]
    said_of_cells = list(dict.fromkeys(f"{r.method_name}, seed {r.seed}: {r.message}" for r in comparison.records if r.status == "ok" and r.message))
    notes = [escaped(tidy(note)) for note in (*comparison.notes, *said_of_cells)]
    parts = [" ".join(scope), _findings(studies)]
    if notes:
        parts += ["Of the run itself is to be said:", "\n".join(f"- {sentence(note)}" for note in notes)]
    if comparison.silenced:
        named = [f"{rule} (“{escaped(RULES[rule].title.rstrip('.'))}”)" for rule in comparison.silenced]
        parts.append(f"{counted(len(named), 'rule').capitalize()} {'was' if len(named) == 1 else 'were'} silenced, so nobody looked: {listed(named)}.")
    return parts


def _scope(studies: Sequence[Study]) -> str:
    models = len({study.spec["model"]["source"] for study in studies})
    data = len({study.spec["data"]["source"] for study in studies})
    one = models == data == 1
    what = f"{counted(models, 'model')} and {counted(data, 'data set')}"
    return f"This comparison is of {what}{', of one size and one budget' if one else ''}; nothing in it says how the methods do on others."


def _untuned(studies: Sequence[Study]) -> list[str]:
    if any(record.tuning for study in studies for record in study.finished):
        return []
    return ["Hyperparameters were not tuned in this run, so that a method may do worse here than it could."]


def _findings(studies: Sequence[Study]) -> str:
    """Every rule that found something, with its evidence and advice."""
    comparison = studies[0].comparison
    asked = len(RULES) - len(comparison.silenced)
    found: dict[str, dict[tuple[str, str], int]] = {}
    for finding in comparison.findings():
        said_of = found.setdefault(finding.rule, {})
        said_of[finding.evidence, finding.advice] = said_of.get((finding.evidence, finding.advice), 0) + 1
    if not found:
        return f"None of the {number(asked)} validity rules that were asked found anything."
    lead = f"Of the {number(asked)} validity rules that were asked, {number(len(found))} found something:"
    return "\n".join([lead, "", *(f"- {_rule(rule, told)}" for rule, told in found.items())])


def _rule(rule: str, told: dict[tuple[str, str], int]) -> str:
    shown = [f"{escaped(evidence)}{f' ({number(count)} times)' if count > 1 else ''}" for (evidence, _), count in list(told.items())[:EVIDENCE]]
    more = [f"{number(len(told) - EVIDENCE)} more of the kind"] if len(told) > EVIDENCE else []
    advice = list(dict.fromkeys(advice for _, advice in told))[0]
    return f"*{rule}* ({RULES[rule].severity}): {'; '.join([*shown, *more])}. Advice: {sentence(escaped(advice))}"


def conclusion(studies: Sequence[Study]) -> list[str]:
    """The finding again, and the recommendations."""
    parts = []
    for study in studies:
        lead = f"_{study.name}_: " if len(studies) > 1 else ""
        parts.append(f"{lead}{best_in_short(study)}")
        answers = [_answer(study, answer) for answer in study.answers]
        if answers:
            parts += ["From these figures alone the following is recommended:", "\n".join(f"+ {answer}" for answer in answers)]
    return parts


def _answer(study: Study, answer: Recommendation) -> str:
    """A recommendation; for quality there is none where nothing was compared."""
    lead = f"_{escaped(answer.question)}_: "
    if answer.question == "Best quality" and answer.against is None and len(study.known(study.standing.metric)) > 1:
        return f"{lead}none; no method was shown to be better than another."
    return lead + escaped(tidy(answer.text))
