"""Results: a section's worth of sentences and tables a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.comparing import Row
from peft_methods.report.paper import analysis, tables
from peft_methods.report.paper.charts import Drawn, told
from peft_methods.report.paper.english import counted, listed, number, ratio, share, with_spread
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


def results(studies: Sequence[Study], figures: Mapping[str, Sequence[Drawn]]) -> list[str]:
    """Paragraphs, tables, and the figures of each recipe by its name."""
    parts = []
    for study in studies:
        several = len(studies) > 1
        level, drawn = "===" if several else "==", figures[study.recipe]
        of = {section: [one for one in drawn if one.section == section] for section in ("quality", "costs", "course")}
        first, *paragraphs = analysis.quality(study)
        parts += [f"== {study.name}"] * several
        parts += [f"{level} Quality", tables.main_table(study), *(one.markup for one in of["quality"])]
        parts += [f"@t-main-{study.label} has the figures of every method. {told(of['quality'])} {first}", *paragraphs, tables.best_table(study)]
        parts += [f"{level} Costs", *(one.markup for one in of["costs"]), *costs(study, told(of["costs"]))]
        parts += [tables.ratio_table(study), tables.device_table(study)]
        parts += [f"{level} Course of the Cells", f"{course(study)} {told(of['course'])}", *(one.markup for one in of["course"]), *missing(study)]
    return [part for part in parts if part]


def costs(study: Study, shown: str = "") -> list[str]:
    """Paragraphs on time, memory, parameters, and who is on the Pareto front; `shown` says what figures show."""
    if not study.measured:
        return ["No cell finished, so there are no costs to report."]
    first = [_spanned(study, "train_seconds", "Training took"), _spanned(study, "peak_memory_bytes", "Peak memory was"), shown]
    second = [_relative(study), _parameters(study), *_sources(study)]
    return [" ".join(filter(None, part)) for part in (first, second, _front(study)) if any(part)]


def _spanned(study: Study, name: str, lead: str) -> str:
    known = study.known(name)
    if not known:
        return ""
    least, most = known[0], known[-1]
    if least is most:
        return f"{lead} {with_spread(name, least.figures[name])} ({study.title(least.method)})."
    ends = [f"{with_spread(name, row.figures[name])} ({study.title(row.method)})" for row in (least, most)]
    return f"{lead} from {ends[0]} to {ends[1]}{' a seed' if name == 'train_seconds' else ''}."


def _relative(study: Study) -> str:
    """Time and memory of the others as multiples of full fine-tuning's, and who takes more than it."""
    full = study.full()
    told_of, more = [], []
    for name, verb in (("train_seconds", "trained for {} times as long"), ("peak_memory_bytes", "needed {} times as much memory")):
        others = [row for row in study.known(name) if row is not full]
        if full is None or not others or not full.figures.get(name) or not full.mean(name) > 0:
            continue
        ends = [f"{ratio(row.mean(name) / full.mean(name))} ({study.title(row.method)})" for row in (others[0], others[-1])]
        told_of.append(verb.format(ends[0] if len(others) == 1 else " to ".join(ends)))
        dearer = [study.title(row.method) for row in others if row.mean(name) > full.mean(name)]
        if dearer:
            more.append(f"more {'time' if name == 'train_seconds' else 'memory'} than full fine-tuning was taken by {listed(dearer, MOST)}")
    if not told_of:
        return ""
    lead = f"Relative to full fine-tuning, the {'others' if len(study.measured) > 2 else 'other method'} {' and '.join(told_of)} (@t-ratios-{study.label})."
    return f"{lead} By the means, {listed(more)}." if more else lead


def _parameters(study: Study) -> str:
    known = study.known("trainable_share")
    if len(known) < 2:
        return ""
    least, most = known[0], known[-1]
    return (
        f"The share of parameters that are trained goes from {share(least.mean('trainable_share'))} ({study.title(least.method)}) to "
        f"{share(most.mean('trainable_share'))} ({study.title(most.method)}), the head included."
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


def course(study: Study) -> str:
    """How many cells finished, and where in training their best epochs lay."""
    done, every = len(study.finished), len(study.records)
    finished = "all" if done == every else number(done) if done else "none"
    found = f"Of {counted(every, 'cell')} (method and seed), {finished} finished." if every > 1 else f"The one cell {'finished' if done else 'did not finish'}."
    judged = [r for r in study.finished if r.best_epoch and len(r.epochs) > 1 and study.has_quality]
    if not judged:
        return found
    last = sum(record.best_epoch == len(record.epochs) for record in judged)
    return f"{found} The best epoch by validation was the last that was trained in {number(last) if last else 'none'} of {counted(len(judged), 'cell')}."


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
