"""The comparison table: for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from peft_methods import escaping
from peft_methods.comparing import Comparison, Figure, Row, title_of
from peft_methods.metrics import METRICS, in_seconds
from peft_methods.recommending import Limits, recommend
from peft_methods.records import Record
from peft_methods.report.costs import COST_NOTE, cost_table
from peft_methods.report.shown import NOTHING, seconds_digits
from peft_methods.report.standings import ranking_notes, ranking_table
from peft_methods.standing import Standing
from peft_methods.validity import RULES, Finding

RANKED = ("accuracy", "macro_f1", "train_seconds", "samples_per_second", "peak_memory_bytes")
HEADINGS = (
    "Method",
    "Accuracy",
    "Macro F1",
    "Group",
    "Trainable (method + head)",
    "%",
    "Train time",
    "Samples/s",
    "Peak memory",
)
RANKING_COLUMNS = (
    "group",
    "interval_low",
    "interval_high",
    "to_best",
    "to_best_low",
    "to_best_high",
    "to_best_p",
    "on_front",
)
BEST = "*"
MAX_SIMILAR = 3  # findings listed in full if they differ in their numbers only


def terminal_table(comparison: Comparison, limits: Limits | None = None) -> str:
    """Format the full comparison for the terminal: setup, tables, recommendations, and notes."""
    return "\n\n".join(
        [
            *_parts(comparison, limits, "simple", escaping.visible),
            *map(escaping.visible, _notes(comparison)),
        ]
    )


def markdown_table(comparison: Comparison, limits: Limits | None = None) -> str:
    """Format the full comparison as GitHub Markdown. Untrusted text is escaped."""
    parts = _parts(comparison, limits, "github", escaping.markdown)
    return (
        "\n\n".join([*parts, *(f"- {escaping.markdown(line)}" for line in _notes(comparison))])
        + "\n"
    )


def _parts(
    comparison: Comparison, limits: Limits | None, style: str, escape: Callable[[str], str]
) -> Iterator[str]:
    """Yield for each recipe: setup, comparison, ranking, costs, recommendations."""
    answers = recommend(comparison, limits)
    for recipe, ranking in comparison.standings.items():
        rows = [row for row in comparison.rows() if row.recipe == recipe]
        lines = [[escape(cell) for cell in line] for line in _lines(rows, ranking)]
        yield escape(described(comparison, recipe))
        yield tabulate(
            lines, headers=HEADINGS, tablefmt=style, disable_numparse=True, colalign=_ALIGN
        )
        yield from filter(None, [ranking_table(ranking, rows, style), cost_table(rows, style)])
        listed = [f"- {escape(str(answer))}" for answer in answers if answer.recipe == recipe]
        if listed:
            within = "".join(
                f", {name} up to {limit.written}" for name, limit in (limits or {}).items()
            )
            yield "\n".join(
                [
                    escape(f"From these figures alone{within}:"),
                    *([""] if style == "github" else []),
                    *listed,
                ]
            )


def tracked_tables(
    comparison: Comparison, limits: Limits
) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Return each recipe's rows (every metric's mean, by method) and its table as Markdown."""
    found = {}
    for recipe in dict.fromkeys(row.recipe for row in comparison.rows()):
        records = tuple(one for one in comparison.records if one.recipe_name == recipe)
        own = replace(comparison, records=records)
        rows = [{"method": row.method, **_means(row)} for row in own.rows()]
        found[recipe] = rows, markdown_table(own, limits)
    return found


def _means(row: Row) -> dict[str, float | None]:
    return {name: row.figures[name].mean if name in row.figures else None for name in METRICS}


def csv_table(comparison: Comparison) -> str:
    """Format one row per method: mean and standard deviation of every metric in base units.

    The column `missing` has the status and reason of each run without a result.
    """
    out = io.StringIO()
    names = [f"{name}{suffix}" for name in METRICS for suffix in ("", "_sd")]
    writer = csv.DictWriter(
        out, ["recipe", "method", "seeds", *names, *RANKING_COLUMNS, "missing"], lineterminator="\n"
    )
    writer.writeheader()
    for row in comparison.rows():
        line = _csv_line(row) | _csv_ranking(row, comparison.standings[row.recipe])
        writer.writerow(
            {
                name: escaping.csv_cell(value) if isinstance(value, str) else value
                for name, value in line.items()
            }
        )
    return out.getvalue()


_ALIGN = ("left", *["right"] * (len(HEADINGS) - 1))


def _csv_line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {
        "recipe": row.recipe,
        "method": row.method,
        "seeds": " ".join(map(str, row.seeds)),
    }
    for name, figure in row.figures.items():
        line |= {name: figure.mean, f"{name}_sd": figure.deviation}
    missing = "; ".join(
        f"seed {record.seed}: {record.status}: {record.message}" for record in row.missing
    )
    return line | {"missing": missing}


def _csv_ranking(row: Row, ranking: Standing) -> dict[str, Any]:
    """Group, interval and difference to the best, in units of 0..1 of the selection metric.

    Unknown values are left empty.
    """
    line: dict[str, Any] = {
        "group": ranking.groups.get(row.method),
        "on_front": ranking.on_front.get(row.method),
    }
    if row.method in ranking.intervals:
        line["interval_low"], line["interval_high"] = ranking.intervals[row.method]
    if (pair := ranking.against_best(row.method)) is not None:
        line |= {
            "to_best": pair.difference,
            "to_best_low": pair.low,
            "to_best_high": pair.high,
            "to_best_p": pair.p,
        }
    return line


def described(comparison: Comparison, recipe: str) -> str:
    """Describe the setup in one line: model, data, budget, seeds, device."""
    records = [r for r in comparison.records if r.recipe_name == recipe and not r.is_source]
    spec = records[0].cell["recipe"]
    data = spec["data"]
    finished = next((r for r in records if r.status == "ok"), None)
    device = _device(finished) if finished else records[0].cell["device"]
    seeds = sorted({r.seed for r in records})
    weights = " (random weights)" if spec["model"]["weights"] == "random" else ""
    texts = " (random tokens)" if finished and finished.data.get("random") else ""
    sizes = (
        {
            split: sum(finished.data["class_counts"][split])
            for split in ("train", "validation", "test")
        }
        if finished
        else data
    )
    deterministic = ", deterministic" * bool(records[0].cell.get("deterministic"))
    return (
        f"{recipe}: {spec['model']['source']}{weights} on {data['source']}{texts}, "
        f"{sizes['train']} train / {sizes['validation']} validation / {sizes['test']} test, "
        f"{_budget(spec)}{deterministic}; seeds {', '.join(map(str, seeds))}; {device}"
    )


def _budget(recipe: dict[str, Any]) -> str:
    """Describe the budget. Options at their default are omitted."""
    budget = recipe["budget"]
    patience, batches = budget.get("early_stopping"), budget.get("gradient_accumulation", 1)
    parts = [
        f"up to {budget['epochs']} epochs (early stopping after {patience} without improvement)"
        if patience
        else f"{budget['epochs']} epochs",
        f"batch {budget['batch_size']}" + (f" × {batches}" if batches > 1 else ""),
        f"max length {recipe['data']['max_length']}",
        budget["precision"],
    ]
    parts += ["gradient checkpointing"] * bool(budget.get("gradient_checkpointing"))
    parts += ["fixed padding"] * (budget.get("padding") == "fixed")
    return ", ".join(parts)


def _device(record: Record) -> str:
    environment = record.environment
    cores = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']}{cores}"


def _lines(rows: Sequence[Row], ranking: Standing) -> list[list[str]]:
    best = {name: _best(name, rows) for name in RANKED}
    digits = seconds_digits(rows)
    return [_line(row, best, ranking, digits) for row in rows]


def _best(name: str, rows: Sequence[Row]) -> float | None:
    values = [row.figures[name].mean for row in rows if name in row.figures]
    if len(values) < 2:
        return None
    return max(values) if METRICS[name].better == "higher" else min(values)


def _line(row: Row, best: dict[str, float | None], ranking: Standing, digits: int) -> list[str]:
    if not row.figures:
        return [row.title, row.missing[0].status, *[NOTHING] * (len(HEADINGS) - 2)]
    title = row.title + (
        f" ({len(row.missing)} of {len(row.missing) + len(row.seeds)} seeds failed)"
        if row.missing
        else ""
    )

    def cell(name: str, text: str) -> str:
        figure = row.figures.get(name)
        return (
            text + (f" {BEST}" if figure is not None and figure.mean == best[name] else "  ")
            if figure
            else NOTHING
        )

    return [
        title,
        *(
            cell(
                name,
                _with_spread(
                    row.figures.get(name),
                    100,
                    1,
                    missing=", one seed: no spread" if name == ranking.metric else "",
                ),
            )
            for name in ("accuracy", "macro_f1")
        ),
        ranking.groups.get(row.method, NOTHING),
        f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}",
        f"{100 * row.mean('trainable_share'):.2f}",
        cell("train_seconds", _with_spread(row.figures.get("train_seconds"), 1, digits, " s")),
        cell("samples_per_second", f"{row.mean('samples_per_second'):,.1f}"),
        cell("peak_memory_bytes", f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB"),
    ]


def _with_spread(
    figure: Figure | None, scale: float, digits: int, unit: str = "", missing: str = ""
) -> str:
    """Format a mean and its standard deviation, or `missing` in its place for a single seed."""
    if figure is None:
        return NOTHING
    spread = missing if figure.deviation is None else f" ± {scale * figure.deviation:.{digits}f}"
    return f"{scale * figure.mean:.{digits}f}{spread}{unit}"


def _notes(comparison: Comparison) -> list[str]:
    """Lines below the tables: how to read them, reasons for missing results, costs, findings."""
    rows = comparison.rows()
    finished = next((r for r in comparison.records if r.status == "ok"), None)
    lines = []
    if finished is not None:
        lines.append(
            f"Accuracy and F1 in %, mean ± standard deviation over seeds; {BEST} best of its "
            "column. Train time: training steps only. "
            f"Peak memory: {finished.environment['memory_kind']}, training only."
        )
    if any(cost_table([row], "simple") for row in rows):
        lines.append(COST_NOTE)
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed: no spread. Differences between methods may be chance; "
            "an interval covers one trained model only, over test examples."
        )
    lines += ranking_notes(comparison)
    lines += reasons(rows)
    lines += [
        f"{r.method_name} seed {r.seed}: {r.message}"
        for r in comparison.records
        if r.status == "ok" and r.message
    ]
    lines += attempts(comparison.records)
    lines += list(source_costs(rows))
    lines += list(comparison.notes)
    lines += _finding_lines(comparison)
    if comparison.silenced:
        rules = ", ".join(f"{rule} ({RULES[rule].title})" for rule in comparison.silenced)
        lines.append(f"Silenced rules (not checked): {rules}")
    return lines


def reasons(rows: Sequence[Row]) -> list[str]:
    """Explain missing results: one line per reason, with all methods and seeds it applies to."""
    affected: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        for record in row.missing:
            seeds_of = affected.setdefault((record.status, record.message), {})
            seeds_of.setdefault(row.title, []).append(record.seed)
    lines = []
    for (status, message), seeds in affected.items():
        every_seed = all(
            len(seeds[row.title]) == len(row.missing) and not row.seeds
            for row in rows
            if row.title in seeds
        )
        subjects = [
            title if every_seed else f"{title} seed {', '.join(map(str, found))}"
            for title, found in seeds.items()
        ]
        lines.append(f"{', '.join(subjects)}: {status}: {message}")
    return lines


def attempts(records: Sequence[Record]) -> list[str]:
    """List the runs that were retried, and how their earlier attempts ended."""
    return [
        f"{title_of(record.method_name)} seed {record.seed}"
        f"{' (prerequisite)' * record.is_source}: attempt {len(record.attempts) + 1}; "
        f"earlier attempts: {'; '.join(record.attempts)}"
        for record in records
        if record.attempts
    ]


def grouped_findings(comparison: Comparison) -> list[tuple[Finding, tuple[str, ...]]]:
    """Merge findings with the same text. Each is returned with all runs or rows it applies to."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in comparison.findings():
        groups.setdefault(
            (finding.rule, finding.severity, finding.evidence, finding.advice), []
        ).append(finding)
    return [(found[0], tuple(finding.subject for finding in found)) for found in groups.values()]


def _finding_lines(comparison: Comparison) -> list[str]:
    """Format one line per finding.

    If more than MAX_SIMILAR findings differ only in their numbers, list the first ones and count
    the rest.
    """
    by_advice: dict[tuple[str, str, str], list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, subjects in grouped_findings(comparison):
        key = finding.rule, finding.severity, finding.advice
        by_advice.setdefault(key, []).append((finding, subjects))
    lines = []
    for (rule, severity, advice), found in by_advice.items():
        shown = found if len(found) <= MAX_SIMILAR else found[: MAX_SIMILAR - 1]
        lines += [
            f"{rule} {severity} {_count(subjects)}: {finding.evidence} → {advice}"
            for finding, subjects in shown
        ]
        if len(found) > len(shown):
            more = sum(len(subjects) for _, subjects in found[len(shown) :])
            lines.append(
                f"{rule} {severity} {more} more runs, with other values; "
                "the HTML report lists them all"
            )
    return lines


def _count(subjects: Sequence[str]) -> str:
    return subjects[0] if len(subjects) == 1 else f"{len(subjects)} runs"


def source_costs(rows: Sequence[Row]) -> list[str]:
    """Report the training time of each method's prerequisite runs, one line per method."""
    return [
        f"{row.title}: its prerequisite runs were trained once, "
        f"{in_seconds(row.mean('source_seconds'))} in total, not included in its train time."
        for row in rows
        if "source_seconds" in row.figures
    ]
