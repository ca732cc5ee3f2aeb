"""Lines below a table: missing results, retried runs, costs and findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from peft_methods.analysis.checks.rule import Finding, Severity
from peft_methods.analysis.comparison import Comparison, Row, title_of
from peft_methods.analysis.data_sets import summarize_data_sets
from peft_methods.analysis.learning_curve import curves_of, main_part
from peft_methods.analysis.models import compare_models
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import DEFAULT_TASK
from peft_methods.report.text.columns import BEST
from peft_methods.report.text.costs import COST_NOTE, has_costs
from peft_methods.report.text.curve import curve_notes
from peft_methods.report.text.data_sets import summary_notes
from peft_methods.report.text.devices import beside_notes
from peft_methods.report.text.left_out import left_out_lines, silenced_line
from peft_methods.report.text.models import MODELS_NOTE
from peft_methods.report.text.noise import noise_notes
from peft_methods.report.text.ranking import ranking_notes
from peft_methods.report.text.several_gpus import several_gpus_notes
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import in_seconds
from peft_methods.tasks.registry import TASKS, task_of
from peft_methods.utils.words import counted, seeds_of

NoteKind = Literal["plain", "error", "warning", "note"]


@dataclass(frozen=True)
class Note:
    """A line below the tables. `subject` is its beginning, which names what it is about."""

    text: str
    kind: NoteKind = "plain"
    subject: str = ""


MAX_SIMILAR = 3  # findings listed in full if they differ in their numbers only


def _quality_unit(comparison: Comparison) -> str:
    """Begin a sentence on figures of quality: 'Accuracy and F1 in %, m' or just 'M'."""
    ranked = dict.fromkeys(METRICS[one.metric] for one in comparison.rankings.values())
    if not all(metric.is_share for metric in ranked):
        return "M" if not any(metric.is_share for metric in ranked) else "Shares in %; m"
    if set(ranked) <= set(TASKS[DEFAULT_TASK].metrics):
        return "Accuracy and F1 in %, m"
    return f"{' and '.join(metric.title for metric in ranked)} in %, m"


def notes(comparison: Comparison) -> list[Note]:
    """Lines below the tables: how to read them, reasons for missing results, costs, findings."""
    rows = comparison.rows()
    finished = next((r for r in comparison.records if r.status == "ok"), None)
    lines = []
    if finished is not None:
        lines.append(
            f"{_quality_unit(comparison)}ean ± standard deviation over seeds; {BEST} best of its "
            "column. Train time: training steps only. "
            f"Peak memory: {finished.environment['memory_kind']}, training only."
        )
    lines += beside_notes(comparison.records)
    if has_costs(rows):
        lines.append(COST_NOTE)
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed: no spread. Differences between methods may be chance; "
            "an interval covers one trained model only, over test examples."
        )
    main = main_part(comparison)
    lines += [*ranking_notes(main), *curve_notes(curves_of(comparison))]
    lines += [*summary_notes(summarize_data_sets(comparison)), *noise_notes(comparison)]
    lines += [MODELS_NOTE] * any(found.models for found in compare_models(comparison))
    several = len(main.rankings) > 1
    left_out = [
        f"{recipe}: {line}" if several else line
        for recipe, ranking in main.rankings.items()
        for line in left_out_lines(ranking, [row for row in rows if row.recipe == recipe])
    ]
    others = [
        *remarks_on_models(comparison.records),
        *remarks_on_data(comparison.records),
        *remarks_on_runs(comparison.records),
        *several_gpus_notes(comparison.records),
        *attempts(comparison.records),
        *source_costs(rows),
        *dict.fromkeys(comparison.notes),
    ]
    return [
        *map(Note, lines),
        *(Note(line, "error") for line in left_out),
        *(Note(line, "warning") for line in reasons(rows)),
        *map(Note, others),
        *finding_lines(comparison),
        *map(Note, [silenced_line(comparison.silenced)] if comparison.silenced else []),
    ]


def reasons(rows: Sequence[Row]) -> list[str]:
    """Explain missing results: one line per reason, with all methods and seeds it applies to."""
    affected: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        for record in row.missing:
            by_title = affected.setdefault((record.status, record.message), {})
            by_title.setdefault(row.title, []).append(record.seed)
    lines = []
    for (status, message), seeds in affected.items():
        every_seed = all(
            len(seeds[row.title]) == len(row.missing) and not row.seeds
            for row in rows
            if row.title in seeds
        )
        subjects = [
            title if every_seed else f"{title} {seeds_of(found)}" for title, found in seeds.items()
        ]
        lines.append(f"{', '.join(subjects)}: {status}: {message}")
    return lines


def remarks_on_models(records: Iterable[Record]) -> list[str]:
    """List what was chosen for a model, such as its padding token, once for each model."""
    found = (
        f"{record.spec.recipe.model.source}: {note}"
        for record in records
        for note in record.environment.get("model_notes", ())
    )
    return list(dict.fromkeys(found))


def remarks_on_runs(records: Sequence[Record]) -> list[str]:
    """List what finished runs have to say, once for all runs with the same message."""
    return _once((record, record.message) for record in records if record.status == "ok")


def remarks_on_data(records: Sequence[Record]) -> list[str]:
    """List what the task remarks on the data and on the results of each recipe."""
    lines: list[str] = []
    for name in dict.fromkeys(record.recipe_name for record in records):
        own = [one for one in records if one.recipe_name == name and one.status == "ok"]
        tested = [one.quality for one in own if one.role == "main" and one.quality]
        remark = task_of(own[0].spec.recipe).remark(tested) if tested else ""
        notes = [f"Data: {note.rstrip('.')}." for one in own for note in one.data.get("notes", ())]
        lines += [*dict.fromkeys(notes), *filter(None, [remark])]
    return list(dict.fromkeys(lines))


def attempts(records: Sequence[Record]) -> list[str]:
    """List the runs that were retried, and how their earlier attempts ended."""
    return _once(
        (
            record,
            f"attempt {len(record.attempts) + 1}; earlier attempts: {'; '.join(record.attempts)}"
            if record.attempts
            else "",
        )
        for record in records
    )


def _once(messages: Iterable[tuple[Record, str]]) -> list[str]:
    """Format one line per message, with all methods and seeds that it applies to."""
    found: dict[str, dict[str, list[int]]] = {}
    for record, message in messages:
        role = " (prerequisite)" * (record.role != "main")
        if message:
            seeds = found.setdefault(message, {})
            seeds.setdefault(f"{title_of(record.method_name)}{role}", []).append(record.seed)
    return [
        f"{'; '.join(f'{name} {seeds_of(of)}' for name, of in seeds.items())}: {message}"
        for message, seeds in found.items()
    ]


def grouped_findings(findings: Iterable[Finding]) -> list[tuple[Finding, tuple[str, ...]]]:
    """Merge findings with the same text. Each is returned with all runs or rows it applies to."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(
            (finding.rule, finding.severity, finding.evidence, finding.advice), []
        ).append(finding)
    return [(found[0], tuple(finding.subject for finding in found)) for found in groups.values()]


def finding_lines(comparison: Comparison) -> list[Note]:
    """Format one note per finding.

    If more than MAX_SIMILAR findings differ only in their numbers, list the first ones and count
    the rest.
    """
    by_advice: dict[tuple[str, Severity, str], list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, subjects in grouped_findings(comparison.findings()):
        key = finding.rule, finding.severity, finding.advice
        by_advice.setdefault(key, []).append((finding, subjects))
    lines = []
    for (rule, severity, advice), found in by_advice.items():
        shown = found if len(found) <= MAX_SIMILAR else found[: MAX_SIMILAR - 1]
        texts = [
            f"{plural_count(subjects)}: {finding.evidence} → {advice}"
            for finding, subjects in shown
        ]
        if len(found) > len(shown):
            more = sum(len(subjects) for _, subjects in found[len(shown) :])
            texts.append(
                f"{counted(more, 'more run')}, with other values; the HTML report lists them all"
            )
        subject = f"{rule} {severity}"
        lines += [Note(f"{subject} {text}", severity, subject) for text in texts]
    return lines


def plural_count(subjects: Sequence[str]) -> str:
    """Name a single run, and count several."""
    return subjects[0] if len(subjects) == 1 else counted(len(subjects), "run")


def source_costs(rows: Sequence[Row]) -> list[str]:
    """Report the training time of each method's prerequisite runs, one line per method."""
    return [
        f"{row.title}: its prerequisite runs were trained once, "
        f"{in_seconds(row.mean('source_seconds'))} in total, not included in its train time."
        for row in rows
        if "source_seconds" in row.metrics
    ]
