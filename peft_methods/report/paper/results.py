"""Results: sentences, tables and figures, a recipe after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.comparing import Row
from peft_methods.report.paper import analysis, tables
from peft_methods.report.paper.charts import Drawn, told
from peft_methods.report.paper.english import (
    counted,
    joined,
    listed,
    number,
    ratio,
    share,
    with_spread,
)
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped
from peft_methods.standing import COSTS

ENDED = {
    "oom": "ran out of memory",
    "failed": "failed",
    "timeout": "ran out of time",
    "crashed": "crashed",
}
MOST = 8
NAMES_OF_COSTS = dict(
    zip(COSTS, ("training time", "peak memory", "trainable parameters"), strict=True)
)
SPENT = {  # what is spent, how much of it, and what the one who spends more takes
    "train_seconds": ("trained for {} as long", "time"),
    "peak_memory_bytes": ("needed {} as much memory", "memory"),
}


def results(studies: Sequence[Study], figures: Mapping[str, Sequence[Drawn]]) -> list[str]:
    """Headings, paragraphs and tables, and the figures of each recipe by its name."""
    parts = []
    for study in studies:
        parts += [f"== {study.name}"] if len(studies) > 1 else []
        parts += _of(study, figures[study.recipe], "===" if len(studies) > 1 else "==")
    return [part for part in parts if part]


def _of(study: Study, figures: Sequence[Drawn], level: str) -> list[str]:
    """One recipe's results; a table or figure stands before the text that it floats beside."""
    of = {
        section: [one for one in figures if one.section == section]
        for section in ("quality", "costs", "course")
    }
    drawn = {section: [one.markup for one in found] for section, found in of.items()}
    first, *paragraphs = analysis.quality(study)
    reading = f"@t-main-{study.label} has the figures of every method."
    return [
        *(f"{level} Quality", tables.main_table(study), *drawn["quality"]),
        *(joined(reading, told(of["quality"]), first), *paragraphs, tables.best_table(study)),
        *(
            f"{level} Costs",
            *drawn["costs"],
            *costs(study, told(of["costs"])),
            tables.ratio_table(study),
            tables.device_table(study),
        ),
        *(
            f"{level} Course of Training",
            *drawn["course"],
            joined(course(study), told(of["course"])),
            missing(study),
        ),
    ]


def costs(study: Study, shown: str = "") -> list[str]:
    """Paragraphs on time, memory, parameters, and who is on the Pareto front; `shown` says what figures show."""
    if not study.measured:
        return ["No cell finished, so there are no costs to report."]
    spans = (
        _spanned(study, "train_seconds", "Training took"),
        _spanned(study, "peak_memory_bytes", "Peak memory was"),
    )
    return [
        joined(
            *spans,
            shown,
            f"@t-device-{study.label} has further costs." if tables.device_table(study) else "",
        ),
        joined(_relative(study), _parameters(study), *_sources(study)),
        _front(study),
    ]


def _spanned(study: Study, name: str, lead: str) -> str:
    known = study.known(name)
    if not known:
        return ""
    least, most = (with_spread(name, row.figures[name]) for row in (known[0], known[-1]))
    if least == most:
        return f"{lead} {least}{' with every method' * (len(known) > 1)}."
    return f"{lead} from {least} ({study.title(known[0].method)}) to {most} ({study.title(known[-1].method)})."


def _relative(study: Study) -> str:
    """Time and memory of the others as multiples of full fine-tuning's, and who takes more than it."""
    spent, more = [], []
    for name, (said_as, what) in SPENT.items():
        ratios = study.ratios(name)
        if not ratios:
            continue
        (least, low), (most, high) = ratios[0], ratios[-1]
        span = f"{ratio(low)} ({study.title(least.method)}) to {ratio(high)} times ({study.title(most.method)})"
        spent.append(said_as.format(span if ratio(low) != ratio(high) else f"{ratio(low)} times"))
        dearer = study.titles((row.method for row, value in ratios if value > 1), MOST)
        more += [f"{dearer} took more {what} than full fine-tuning"] if dearer else []
    if not spent:
        return ""
    who = "other methods" if len(study.measured) > 2 else "other method"
    lead = (
        f"Relative to full fine-tuning, the {who} {' and '.join(spent)} (@t-ratios-{study.label})."
    )
    return joined(lead, f"By the means, {listed(more)}." if more else "")


def _parameters(study: Study) -> str:
    known = study.known("trainable_share")
    ends = [
        f"{share(row.mean('trainable_share'))} ({study.title(row.method)})"
        for row in known[:1] + known[-1:]
    ]
    apart = len({share(row.mean("trainable_share")) for row in known}) > 1
    return (
        f"The share of parameters that are trained, the head's included, goes from {ends[0]} to {ends[1]}."
        if apart
        else ""
    )


def _sources(study: Study) -> list[str]:
    """What the sources of a method cost, which its training time leaves out."""
    return [
        f"The sources of {study.title(row.method)} were trained once, in {with_spread('source_seconds', row.figures['source_seconds'])} in "
        "all, which its training time leaves out."
        for row in study.known("source_seconds")
    ]


def _front(study: Study) -> str:
    known = {method: on for method, on in study.standing.on_front.items() if on is not None}
    if len(known) < 2:
        return ""
    figures = [study.metric] * study.has_quality + [
        what for name, what in NAMES_OF_COSTS.items() if study.known(name)
    ]
    on = [method for method, is_on in known.items() if is_on]
    return (
        f"On the Pareto front of {listed(figures)} {'is' if len(on) == 1 else 'are'} {study.titles(on, MOST)}: by their means no other "
        "method is at least as good in every one of these and better in one. The front is of means, and says nothing of chance."
    )


def course(study: Study) -> str:
    """How many cells finished, and where in training their best epochs lay."""
    done, every = len(study.finished), len(study.records)
    finished = "all" if done == every else number(done) if done else "none"
    if every == 1:
        found = f"The one cell {'finished' if done else 'did not finish'}."
    else:
        found = f"Of {counted(every, 'cell')} (method and seed), {finished} finished."
    judged = [
        record
        for record in study.finished
        if record.best_epoch and len(record.epochs) > 1 and study.has_quality
    ]
    if not judged:
        return found
    last = sum(record.best_epoch == len(record.epochs) for record in judged)
    where = (
        f"in {number(last) if last else 'none'} of {counted(len(judged), 'cell')}"
        if len(judged) > 1
        else "in none" * (not last)
    )
    return joined(
        found, f"The best epoch by validation was the last that was trained {where}".strip() + "."
    )


def missing(study: Study) -> str:
    """Why results are missing, a sentence a reason, with the methods and seeds that it struck."""
    struck: dict[tuple[str, str], list[Row]] = {}
    for row in study.rows:
        for reason in dict.fromkeys((str(record.status), record.message) for record in row.missing):
            struck.setdefault(reason, []).append(row)
    told_of = []
    for (status, message), rows in struck.items():
        who = listed([_who(study, row, status, message) for row in rows], MOST)
        verb = (
            f"{'was' if len(rows) == 1 else 'were'} skipped"
            if status == "skipped"
            else ENDED[status]
        )
        told_of.append(f"{who} {verb}{f': “{escaped(message)}”' if message else ''}.")
    return joined(*told_of)


def _who(study: Study, row: Row, status: str, message: str) -> str:
    seeds = [
        str(record.seed)
        for record in row.missing
        if (record.status, record.message) == (status, message)
    ]
    if not row.seeds and len(seeds) == len(row.missing):
        return study.title(row.method)
    return f"{study.title(row.method)} with seed{'s' * (len(seeds) > 1)} {listed(seeds)}"
