"""Analysis and discussion, threats to validity, and the conclusion with the recommendations."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.forecast import Forecast
from peft_methods.analysis.questions import QuestionKind, Recommendation
from peft_methods.report.noise import parts_text
from peft_methods.report.paper.analysis import in_short, resolution
from peft_methods.report.paper.english import (
    capital,
    counted,
    formatted,
    gap,
    joined,
    listed,
    number,
    sentence,
    tidy,
    was,
)
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped

MOST = 6
EVIDENCE = 3  # shown per rule
FIXED = {  # what is the same for all seeds, if a part of `budget.vary` is missing
    "initialisation": "initial weights",
    "data_order": "orders of the training rows",
    "dropout": "dropout masks",
    "training_subset": "training rows",
    "split": "validation rows",
}
COSTS = {"train_seconds": "training time", "peak_memory_bytes": "peak memory"}


def discussion(studies: Sequence[Study]) -> list[str]:
    """Interpret the results together, then list what may be wrong with them."""
    trades = [f"{_lead(study, studies)}{joined(*_trade(study))}" for study in studies]
    return ["== Quality Against Cost", *trades, "== Threats to Validity", *threats(studies)]


def _lead(study: Study, studies: Sequence[Study]) -> str:
    return f"_{study.name}_: " if len(studies) > 1 else ""


def _trade(study: Study) -> list[str]:
    """Name the cheapest of the methods that are not separable from the best one.

    Then state the smallest difference that this comparison can detect.
    """
    if not study.measured:
        return ["No run finished, so there is nothing to discuss."]
    if not study.is_compared:
        return [
            "Since quality is not compared, it cannot be weighed against cost; only the costs can "
            "be compared."
        ]
    sound = study.sound_order
    if len(sound) < 2:
        return [study.left_out, "So there is no choice between the remaining methods to discuss."]
    best = sound[0]
    level = [
        best,
        *(
            pair.second
            for pair in study.pairs_of(best)
            if not pair.is_separable and pair.second in sound
        ),
    ]
    if len(level) == 1:
        found = [
            f"{study.title(best)} is better than every other compared method"
            f"{' without an error' * bool(study.left_out)}, so this quality is available at its "
            "costs only."
        ]
    else:
        least = [text for name in COSTS if (text := _least(study, level, name))]
        cheapest = f"; of these and {study.title(best)}, {listed(least)}" if least else ""
        verb = "is" if len(level) == 2 else "are"
        found = [
            f"{study.titles(level[1:], MOST)} {verb} not separable from {study.title(best)} in "
            f"quality{cheapest}."
        ]
        found += ["That two methods are not separable does not show that they are equally good."]
    return [*found, _resolution(study)]


def _resolution(study: Study) -> str:
    width = resolution(study)
    return (
        f"The median interval of a difference is ±{gap(study.quality, width or 0.0)}: much smaller "
        f"differences cannot be detected with {counted(len(study.seeds), 'seed')} and this test "
        "set."
    )


def _least(study: Study, methods: Sequence[str], name: str) -> str:
    """Name the method with the lowest cost; the first of `methods` is the best in quality."""
    known = [row for row in study.known(name) if row.method in methods]
    if len(known) < 2 or formatted(name, known[0].mean(name)) == formatted(
        name, known[-1].mean(name)
    ):
        return ""
    best = next((row for row in known if row.method == methods[0]), None)
    other = (
        f" against {formatted(name, best.mean(name))} for {study.title(best.method)}"
        if best is not None and best is not known[0]
        else ""
    )
    least = formatted(name, known[0].mean(name))
    return f"{study.title(known[0].method)} has the lowest {COSTS[name]} ({least}{other})"


def threats(studies: Sequence[Study]) -> list[str]:
    """Return the threats to validity.

    They are the limits of this comparison, the findings of the rules, the notes of the session, and
    the silenced rules.
    """
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
    limits = [f"{_lead(study, studies)}{text}" for study in studies for text in _limits(study)]
    parts = [joined(_scope(studies), _untuned(studies)), *limits, _findings(studies)]
    parts += ["Notes on the execution:", "\n".join(notes)] if notes else []
    if silenced:
        rules = capital(counted(len(silenced), "rule"))
        parts.append(f"{rules} {was(len(silenced))} silenced and not checked: {listed(silenced)}.")
    return parts


def _scope(studies: Sequence[Study]) -> str:
    models, data = (
        len(set(sources))
        for sources in (
            [study.settings.model.source for study in studies],
            [study.settings.data.source for study in studies],
        )
    )
    one = ", of one size and one budget" if models == data == 1 else ""
    what = f"{counted(models, 'model')} and {counted(data, 'data set')}{one}"
    return f"This comparison covers {what}; its results may not carry over to others."


def _untuned(studies: Sequence[Study]) -> str:
    if any(record.tuning for study in studies for record in study.finished) or not any(
        study.has_quality for study in studies
    ):
        return ""
    return (
        "Hyperparameters were not tuned, so a method may perform worse here than it would with "
        "tuning."
    )


def _limits(study: Study) -> list[str]:
    """Return what the intervals of a study leave out, and what its learning curve assumes."""
    return list(filter(None, [_fixed(study), _curve(study)])) if study.has_quality else []


def _fixed(study: Study) -> str:
    """Name what is the same for all seeds; empty for one seed, or if nothing is."""
    vary, data = study.settings.budget.vary, study.settings.data
    drawn = {*vary, "training_subset"} if data.train_subset is not None else {*vary}
    fixed = [what for part, what in FIXED.items() if part not in drawn]
    if not fixed or len(study.seeds) < 2:
        return ""
    what = f"Seeds vary {parts_text(vary)} alone" if vary else "All seeds repeat one training"
    return f"{what}: the intervals do not include what other {listed(fixed)} would change."


def _curve(study: Study) -> str:
    if (curve := study.curve) is None:
        return ""
    forecast = any(isinstance(one, Forecast) for one in curve.forecasts.values())
    return joined(
        f"The learning curve covers {curve.sizes[0]:,} to {curve.sizes[-1]:,} training rows. All "
        "sizes have the same number of epochs, so small ones have fewer optimizer steps, and more "
        "epochs may raise their quality. Larger sizes contain the smaller ones, so their errors "
        "are not independent.",
        "What the next doubling brings holds only if quality goes on by the fitted law, and for "
        "one doubling."
        if forecast
        else "",
    )


def _findings(studies: Sequence[Study]) -> str:
    """List every rule with findings, with its evidence and advice."""
    comparison = studies[0].comparison
    checked = counted(len(RULES) - len(comparison.silenced), "validity rule")
    found: dict[str, dict[tuple[str, str], int]] = {}
    for finding in comparison.findings():
        evidence = found.setdefault(finding.rule, {})
        evidence[finding.evidence, finding.advice] = (
            evidence.get((finding.evidence, finding.advice), 0) + 1
        )
    if not found:
        return f"None of the {checked} checked found a problem."
    lead = f"Of the {checked} checked, {number(len(found))} found a problem:"
    return "\n".join([lead, "", *(f"- {_rule(rule, one)}" for rule, one in found.items())])


def _rule(rule: str, evidence_counts: dict[tuple[str, str], int]) -> str:
    """Format a rule with its first pieces of evidence, and the advice of the first."""
    shown = [
        f"{escaped(evidence)}{f' ({number(count)} times)' if count > 1 else ''}"
        for (evidence, _), count in list(evidence_counts.items())[:EVIDENCE]
    ]
    others = len(evidence_counts) - EVIDENCE
    more = [f"{number(others)} more of this kind"] if others > 0 else []
    advice = sentence(escaped(next(advice for _, advice in evidence_counts)))
    evidence = "; ".join([*shown, *more])
    return f"*{rule}* ({RULES[rule].severity}): {evidence}. Advice: {advice}"


def conclusion(studies: Sequence[Study]) -> list[str]:
    """Repeat the finding, and give the recommendations."""
    parts = []
    for study in studies:
        parts.append(f"{_lead(study, studies)}{joined(in_short(study), study.left_out)}")
        if study.answers:
            within = "".join(
                f", within {name} {escaped(limit.written)}" for name, limit in study.limits.items()
            )
            parts += [f"Based on these figures alone{within}, the recommendations are:"]
            parts += ["\n".join(f"+ {_answer(study, answer)}" for answer in study.answers)]
    return parts


def _answer(study: Study, answer: Recommendation) -> str:
    """Format a recommendation. For quality there is none if nothing was compared."""
    lead = f"_{escaped(answer.question)}_: "
    if (
        answer.kind is QuestionKind.BEST_QUALITY
        and answer.against is None
        and len(study.known(study.ranking.metric)) > 1
    ):
        best = study.title(answer.highest or answer.method or "")
        end = "highest" if study.quality.sign() > 0 else "lowest"
        return (
            f"{lead}none is recommended; {best}, which has the {end} figure, was not compared "
            "with the second best."
        )
    return lead + escaped(tidy(answer.text))
