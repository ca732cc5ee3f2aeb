"""The section on results: sentences, tables and figures for each recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.ranking import COSTS
from peft_methods.report.paper import analysis, tables
from peft_methods.report.paper.charts import ALL, PaperFigure, description
from peft_methods.report.paper.curve import learning_curve
from peft_methods.report.paper.data_sets import all_recipes
from peft_methods.report.paper.english import (
    counted,
    joined,
    listed,
    number,
    ratio,
    share,
    with_spread,
)
from peft_methods.report.paper.models import several_models
from peft_methods.report.paper.noise import noise
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped

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
# Metric -> the phrase for its multiple, and its noun.
SPENT = {
    "train_seconds": ("trained for {} as long", "time"),
    "peak_memory_bytes": ("needed {} as much memory", "memory"),
}


def results(studies: Sequence[Study], figures: Mapping[str, Sequence[PaperFigure]]) -> list[str]:
    """Return headings, paragraphs and tables; `figures` are those of each recipe by name."""
    parts = []
    for study in studies:
        parts += [f"== {study.name}"] if len(studies) > 1 else []
        parts += _of(study, figures[study.recipe], "===" if len(studies) > 1 else "==")
    parts += several_models(studies)
    parts += all_recipes(studies, figures.get(ALL, ()))
    return [part for part in parts if part]


def _of(study: Study, figures: Sequence[PaperFigure], level: str) -> list[str]:
    """Return one recipe's results. A table or figure precedes the text that it floats next to."""
    of = {
        section: [one for one in figures if one.section == section]
        for section in ("quality", "costs", "curve", "course")
    }
    drawn = {section: [one.markup for one in found] for section, found in of.items()}
    first, *paragraphs = analysis.quality(study)
    reading = f"@t-main-{study.label} gives the figures of every method."
    return [
        *(f"{level} Quality", tables.main_table(study), *drawn["quality"]),
        *(
            joined(reading, description(of["quality"]), first),
            *paragraphs,
            tables.best_table(study),
            *noise(study),
        ),
        *(
            f"{level} Costs",
            *drawn["costs"],
            *costs(study, description(of["costs"])),
            tables.ratio_table(study),
            tables.device_table(study),
        ),
        *learning_curve(study, of["curve"], level),
        *(
            f"{level} Course of Training",
            *drawn["course"],
            joined(course(study), description(of["course"])),
            missing(study),
        ),
    ]


def costs(study: Study, shown: str = "") -> list[str]:
    """Return paragraphs on time, memory, parameters and the Pareto front.

    `shown` is the sentence on the figures.
    """
    if not study.measured:
        return ["No run finished, so there are no costs to report."]
    spans = (
        _spanned(study, "train_seconds", "Training took"),
        _spanned(study, "peak_memory_bytes", "Peak memory was"),
    )
    return [
        joined(
            *spans,
            shown,
            f"@t-device-{study.label} gives further costs." if tables.device_table(study) else "",
        ),
        joined(_relative(study), _parameters(study), *_sources(study)),
        _front(study),
    ]


def _spanned(study: Study, name: str, lead: str) -> str:
    known = study.known(name)
    if not known:
        return ""
    least, most = (with_spread(name, row.metrics[name]) for row in (known[0], known[-1]))
    if least == most:
        return f"{lead} {least}{' for every method' * (len(known) > 1)}."
    lowest, highest = study.title(known[0].method), study.title(known[-1].method)
    return f"{lead} from {least} ({lowest}) to {most} ({highest})."


def _relative(study: Study) -> str:
    """Give the time and memory of the other methods as multiples of full fine-tuning's.

    Then name the methods that need more than it.
    """
    spent, more = [], []
    for name, (phrase, what) in SPENT.items():
        ratios = study.ratios(name)
        if not ratios:
            continue
        (least, low), (most, high) = ratios[0], ratios[-1]
        span = (
            f"{ratio(low)} ({study.title(least.method)}) to "
            f"{ratio(high)} times ({study.title(most.method)})"
        )
        spent.append(phrase.format(span if ratio(low) != ratio(high) else f"{ratio(low)} times"))
        dearer = study.titles((row.method for row, value in ratios if value > 1), MOST)
        more += [f"{dearer} took more {what} than full fine-tuning"] if dearer else []
    if not spent:
        return ""
    others = "other methods" if len(study.measured) > 2 else "other method"
    table = f"@t-ratios-{study.label}"
    lead = f"Relative to full fine-tuning, the {others} {' and '.join(spent)} ({table})."
    return joined(lead, f"On average, {listed(more)}." if more else "")


def _parameters(study: Study) -> str:
    known = study.known("trainable_share")
    ends = [
        f"{share(row.mean('trainable_share'))} ({study.title(row.method)})"
        for row in known[:1] + known[-1:]
    ]
    differ = len({share(row.mean("trainable_share")) for row in known}) > 1
    return (
        f"The share of trained parameters, including the head, ranges from {ends[0]} to {ends[1]}."
        if differ
        else ""
    )


def _sources(study: Study) -> list[str]:
    """Give the cost of a method's prerequisite runs, which its training time excludes."""
    return [
        f"The prerequisite runs of {study.title(row.method)} took "
        f"{with_spread('source_seconds', row.metrics['source_seconds'])} in total. They were "
        "performed once, and its training time excludes them."
        for row in study.known("source_seconds")
    ]


def _front(study: Study) -> str:
    known = {method: on for method, on in study.ranking.pareto_optimal.items() if on is not None}
    if len(known) < 2:
        return study.left_out
    figures = [study.metric] * study.has_quality + [
        what for name, what in NAMES_OF_COSTS.items() if study.known(name)
    ]
    on = [method for method, is_on in known.items() if is_on]
    return joined(
        f"{study.titles(on, MOST)} {'is' if len(on) == 1 else 'are'} on the Pareto front of "
        f"{listed(figures)}: no other method has means that are at least as good in every one of "
        "these and better in one. The front compares means and ignores chance.",
        study.left_out,
    )


def course(study: Study) -> str:
    """Give the number of finished runs, and the position of their best epochs."""
    done, every = len(study.finished), len(study.records)
    finished = "all" if done == every else number(done) if done else "none"
    if every == 1:
        found = f"The only run {'finished' if done else 'did not finish'}."
    else:
        found = f"Of {counted(every, 'run')} (method and seed), {finished} finished."
    validated = [
        record
        for record in study.finished
        if record.best_epoch and len(record.epochs) > 1 and study.has_quality
    ]
    if not validated:
        return found
    last = sum(record.best_epoch == len(record.epochs) for record in validated)
    where = (
        f" in {number(last) if last else 'none'} of {counted(len(validated), 'run')}"
        if len(validated) > 1
        else ""
    )
    verb = "was" if last or where else "was not"
    return joined(found, f"The best epoch by validation {verb} the last trained epoch{where}.")


def missing(study: Study) -> str:
    """Explain missing results: one sentence per reason, with its methods and seeds."""
    affected: dict[tuple[str, str], list[Row]] = {}
    for row in study.rows:
        for reason in dict.fromkeys((str(record.status), record.message) for record in row.missing):
            affected.setdefault(reason, []).append(row)
    sentences = []
    for (status, message), rows in affected.items():
        names = listed([_method_and_seeds(study, row, status, message) for row in rows], MOST)
        verb = (
            f"{'was' if len(rows) == 1 else 'were'} skipped"
            if status == "skipped"
            else ENDED[status]
        )
        sentences.append(f"{names} {verb}{f': “{escaped(message)}”' if message else ''}.")
    return joined(*sentences)


def _method_and_seeds(study: Study, row: Row, status: str, message: str) -> str:
    seeds = [
        str(record.seed)
        for record in row.missing
        if (record.status, record.message) == (status, message)
    ]
    if not row.seeds and len(seeds) == len(row.missing):
        return study.title(row.method)
    return f"{study.title(row.method)} with seed{'s' * (len(seeds) > 1)} {listed(seeds)}"
