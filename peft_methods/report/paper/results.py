"""Results: a section's worth of sentences and tables a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.comparing import Row
from peft_methods.report.paper import analysis, tables
from peft_methods.report.paper.english import counted, listed, number, sentence, times, with_spread
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped
from peft_methods.standing import COSTS

ENDED = {
    "oom": "ran out of memory",
    "failed": "failed",
    "timeout": "ran out of time",
    "crashed": "crashed",
    "skipped": "was skipped",
}
MOST = 8
NAMES_OF_COSTS = dict(zip(COSTS, ("training time", "peak memory", "trainable parameters"), strict=True))


def results(studies: Sequence[Study], figures: Mapping[str, Sequence[str]]) -> list[str]:
    """Paragraphs, tables, and the figures of each recipe (markup by the recipe's name, in the order of the text)."""
    parts = []
    for study in studies:
        level = "==="
        if len(studies) > 1:
            parts.append(f"== {study.name}")
        else:
            level = "=="
        parts += [f"{level} Quality", tables.main_table(study), _reading(study), *analysis.quality(study), tables.best_table(study)]
        parts += figures.get(study.recipe, ())
        parts += [f"{level} Costs", *costs(study), tables.ratio_table(study), tables.device_table(study)]
        parts += [f"{level} Course of the Cells", *course(study), *missing(study)]
    return [part for part in parts if part]


def _reading(study: Study) -> str:
    return f"@t-main-{study.label} has the figures of every method."


def costs(study: Study) -> list[str]:
    """Paragraphs on time, memory, parameters, and who is on the Pareto front."""
    if not study.measured:
        return ["No cell finished, so there are no costs to report."]
    first = [_spanned(study, "train_seconds", "Training took"), _spanned(study, "peak_memory_bytes", "Peak memory was")]
    second = [_relative(study, "train_seconds", "took", "as long"), _relative(study, "peak_memory_bytes", "needed", "as much memory at the peak")]
    third = [_parameters(study), *_sources(study), *_front(study)]
    return [" ".join(filter(None, part)) for part in (first, second, third) if any(part)]


def _spanned(study: Study, name: str, lead: str) -> str:
    known = study.known(name)
    if not known:
        return ""
    least, most = known[0], known[-1]
    if least is most:
        return f"{lead} {with_spread(name, least.figures[name])} ({study.title(least.method)})."
    ends = [f"{with_spread(name, row.figures[name])} ({study.title(row.method)})" for row in (least, most)]
    return f"{lead} from {ends[0]} to {ends[1]}{' a seed' if name == 'train_seconds' else ''}."


def _relative(study: Study, name: str, verb: str, what: str) -> str:
    full = study.full()
    others = [row for row in study.known(name) if full is not None and row is not full]
    if full is None or name not in full.figures or not others or not full.mean(name) > 0:
        return ""
    told = [
        f"{study.title(row.method)} {times(row.mean(name) / full.mean(name))} ({with_spread(name, row.figures[name])})" for row in others
    ]
    return f"Against full fine-tuning ({with_spread(name, full.figures[name])}), {verb_of(told, verb)} {what}."


def verb_of(told: Sequence[str], verb: str) -> str:
    """'A took 0.5 times (…), and B 0.7 times (…)'."""
    first, *rest = told
    name, ratio = first.rsplit(" times", 1)[0].rsplit(" ", 1)
    lead = f"{name} {verb} {ratio} times{first.rsplit(' times', 1)[1]}"
    return listed([lead, *rest], MOST)


def _parameters(study: Study) -> str:
    known = study.known("trainable_share")
    if len(known) < 2:
        return ""
    least, most = known[0], known[-1]
    return (
        f"The share of parameters that are trained goes from {100 * least.mean('trainable_share'):.2f}% ({study.title(least.method)}) to "
        f"{100 * most.mean('trainable_share'):.2f}% ({study.title(most.method)}), the head included."
    )


def _sources(study: Study) -> list[str]:
    """What the sources of a method cost, which its training time leaves out."""
    return [
        f"The sources of {study.title(row.method)} were trained once, in {with_spread('source_seconds', row.figures['source_seconds'])} in all, "
        f"which its training time leaves out."
        for row in study.known("source_seconds")
    ]


def _front(study: Study) -> list[str]:
    known = {method: on for method, on in study.standing.on_front.items() if on is not None}
    if len(known) < 2:
        return []
    figures = [*([study.metric] if study.has_quality else []), *(what for name, what in NAMES_OF_COSTS.items() if study.known(name))]
    on = [study.title(method) for method, is_on in known.items() if is_on]
    return [
        f"On the Pareto front of {listed(figures)} {'is' if len(on) == 1 else 'are'} {listed(on, MOST)}: by their means no other method is at least "
        f"as good in every one of these and better in one. The front is of means, and says nothing of chance."
    ]


def course(study: Study) -> list[str]:
    """How many cells finished, and where in training their best epochs lay."""
    done, all_of_them = len(study.finished), len(study.records)
    found = [f"{sentence(counted(all_of_them, 'cell')).rstrip('.')} (method and seed) {'was' if all_of_them == 1 else 'were'} to be trained; "]
    found[0] += ("it finished." if all_of_them == 1 else "all finished.") if done == all_of_them else f"{number(done) if done else 'none'} finished."
    judged = [r for r in study.finished if r.best_epoch and r.epochs and len(r.epochs) > 1 and study.has_quality]
    if judged:
        last = sum(record.best_epoch == len(record.epochs) for record in judged)
        of_all = f"{number(last) if last else 'none'} of {number(len(judged))} cells"
        found.append(f"The best epoch by validation was the last one that was trained in {of_all}.")
    return [" ".join(found)]


def missing(study: Study) -> list[str]:
    """Why results are missing, a sentence a reason, with the methods and seeds that it struck."""
    struck: dict[tuple[str, str], list[Row]] = {}
    for row in study.rows:
        for status, message in dict.fromkeys((record.status, record.message) for record in row.missing):
            struck.setdefault((status, message), []).append(row)
    told = []
    for (status, message), rows in struck.items():
        who = [_who(study, row, status, message) for row in rows]
        verb = ENDED[status] if len(rows) == 1 or status != "skipped" else "were skipped"
        told.append(f"{listed(who, MOST)} {verb}{f': “{escaped(message)}”' if message else ''}.")
    return [" ".join(told)] if told else []


def _who(study: Study, row: Row, status: str, message: str) -> str:
    seeds = [str(record.seed) for record in row.missing if (record.status, record.message) == (status, message)]
    if not row.seeds and len(seeds) == len(row.missing):
        return study.title(row.method)
    return f"{study.title(row.method)} with seed{'s' if len(seeds) > 1 else ''} {listed(seeds)}"
