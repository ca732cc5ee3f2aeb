"""The comparison as a table: for the terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tabulate import tabulate

from peft_methods import escaping
from peft_methods.comparing import Comparison, Figure, Row, title_of
from peft_methods.metrics import METRICS, in_seconds
from peft_methods.recommending import Limits, recommend
from peft_methods.records import Record
from peft_methods.report.costs import SAID, cost_table
from peft_methods.report.shown import NOTHING, seconds_digits
from peft_methods.report.standings import said_of, standings_table
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
STANDING = (
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
MOST_ALIKE = 3  # findings in full that differ in their figures alone


def terminal_table(comparison: Comparison, limits: Limits | None = None) -> str:
    """Everything a reader of the terminal needs: what was run, the tables, what they recommend, and what to know about them."""
    return "\n\n".join(
        [
            *_parts(comparison, limits, "simple", escaping.visible),
            *map(escaping.visible, _said(comparison)),
        ]
    )


def markdown_table(comparison: Comparison, limits: Limits | None = None) -> str:
    """The same as GitHub Markdown; texts from outside are escaped."""
    parts = _parts(comparison, limits, "github", escaping.markdown)
    return (
        "\n\n".join([*parts, *(f"- {escaping.markdown(line)}" for line in _said(comparison))])
        + "\n"
    )


def _parts(
    comparison: Comparison, limits: Limits | None, style: str, escape: Callable[[str], str]
) -> Iterator[str]:
    """For each recipe: what was run, the table, standings, costs, recommendations."""
    answers = recommend(comparison, limits)
    for recipe, standing in comparison.standings.items():
        rows = [row for row in comparison.rows() if row.recipe == recipe]
        lines = [[escape(cell) for cell in line] for line in _lines(rows, standing)]
        yield escape(described(comparison, recipe))
        yield tabulate(
            lines, headers=HEADINGS, tablefmt=style, disable_numparse=True, colalign=_ALIGN
        )
        yield from filter(None, [standings_table(standing, rows, style), cost_table(rows, style)])
        told = [f"- {escape(str(answer))}" for answer in answers if answer.recipe == recipe]
        if told:
            within = "".join(
                f", {name} up to {limit.written}" for name, limit in (limits or {}).items()
            )
            yield "\n".join(
                [
                    escape(f"From these figures alone{within}:"),
                    *([""] if style == "github" else []),
                    *told,
                ]
            )


def csv_table(comparison: Comparison) -> str:
    """A row a method: mean and standard deviation of every metric in base units, status and reasons."""
    out = io.StringIO()
    names = [f"{name}{suffix}" for name in METRICS for suffix in ("", "_sd")]
    writer = csv.DictWriter(
        out, ["recipe", "method", "seeds", *names, *STANDING, "missing"], lineterminator="\n"
    )
    writer.writeheader()
    for row in comparison.rows():
        line = _csv_line(row) | _csv_standing(row, comparison.standings[row.recipe])
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


def _csv_standing(row: Row, standing: Standing) -> dict[str, Any]:
    """Group, interval and difference to the best (0..1, of what the recipe selects by); what is not known is empty."""
    line: dict[str, Any] = {
        "group": standing.groups.get(row.method),
        "on_front": standing.on_front.get(row.method),
    }
    if row.method in standing.intervals:
        line["interval_low"], line["interval_high"] = standing.intervals[row.method]
    if (pair := standing.against_best(row.method)) is not None:
        line |= {
            "to_best": pair.difference,
            "to_best_low": pair.low,
            "to_best_high": pair.high,
            "to_best_p": pair.p,
        }
    return line


def described(comparison: Comparison, recipe: str) -> str:
    """One line on what was run: model, data, budget, seeds, device."""
    records = [r for r in comparison.records if r.recipe_name == recipe and not r.is_source]
    spec = records[0].cell["recipe"]
    data = spec["data"]
    ran = next((r for r in records if r.status == "ok"), None)
    where = _device(ran) if ran else records[0].cell["device"]
    seeds = sorted({r.seed for r in records})
    weights = " (random weights)" if spec["model"]["weights"] == "random" else ""
    texts = " (random tokens)" if ran and ran.data.get("random") else ""
    sizes = (
        {split: sum(ran.data["class_counts"][split]) for split in ("train", "validation", "test")}
        if ran
        else data
    )
    return (
        f"{recipe}: {spec['model']['source']}{weights} on {data['source']}{texts}, "
        f"{sizes['train']} train / {sizes['validation']} validation / {sizes['test']} test, "
        f"{_budget(spec)}{', deterministic' * bool(records[0].cell.get('deterministic'))}; seeds {', '.join(map(str, seeds))}; {where}"
    )


def _budget(recipe: dict[str, Any]) -> str:
    """The budget in words; an option left as it is goes without saying."""
    budget = recipe["budget"]
    patience, batches = budget.get("early_stopping"), budget.get("gradient_accumulation", 1)
    said = [
        f"up to {budget['epochs']} epochs (ends after {patience} without gain)"
        if patience
        else f"{budget['epochs']} epochs",
        f"batch {budget['batch_size']}" + (f" × {batches}" if batches > 1 else ""),
        f"max length {recipe['data']['max_length']}",
        budget["precision"],
    ]
    said += ["gradient checkpointing"] * bool(budget.get("gradient_checkpointing"))
    said += ["fixed padding"] * (budget.get("padding") == "fixed")
    return ", ".join(said)


def _device(record: Record) -> str:
    environment = record.environment
    cores = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']}{cores}"


def _lines(rows: Sequence[Row], standing: Standing) -> list[list[str]]:
    best = {name: _best(name, rows) for name in RANKED}
    digits = seconds_digits(rows)
    return [_line(row, best, standing, digits) for row in rows]


def _best(name: str, rows: Sequence[Row]) -> float | None:
    values = [row.figures[name].mean for row in rows if name in row.figures]
    if len(values) < 2:
        return None
    return max(values) if METRICS[name].better == "higher" else min(values)


def _line(row: Row, best: dict[str, float | None], standing: Standing, digits: int) -> list[str]:
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
                    lacking=", one seed: no spread" if name == standing.metric else "",
                ),
            )
            for name in ("accuracy", "macro_f1")
        ),
        standing.groups.get(row.method, NOTHING),
        f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}",
        f"{100 * row.mean('trainable_share'):.2f}",
        cell("train_seconds", _with_spread(row.figures.get("train_seconds"), 1, digits, " s")),
        cell("samples_per_second", f"{row.mean('samples_per_second'):,.1f}"),
        cell("peak_memory_bytes", f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB"),
    ]


def _with_spread(
    figure: Figure | None, scale: float, digits: int, unit: str = "", lacking: str = ""
) -> str:
    """A mean with its spread; `lacking` stands where one seed has none."""
    if figure is None:
        return NOTHING
    spread = lacking if figure.deviation is None else f" ± {scale * figure.deviation:.{digits}f}"
    return f"{scale * figure.mean:.{digits}f}{spread}{unit}"


def _said(comparison: Comparison) -> list[str]:
    """What stands under the table: how to read it, sources' cost, reasons, notes and findings."""
    rows = comparison.rows()
    ran = next((r for r in comparison.records if r.status == "ok"), None)
    lines = []
    if ran is not None:
        lines.append(
            f"Accuracy and F1 in %, mean ± standard deviation over seeds; {BEST} best of its column. Train time: training steps only. "
            f"Peak memory: {ran.environment['memory_kind']}, training only."
        )
    if any(cost_table([row], "simple") for row in rows):
        lines.append(SAID)
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed: no spread. Differences between methods may be chance; an interval is that of one model, over test examples."
        )
    lines += said_of(comparison)
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
        lines.append(
            f"Silenced, so nobody looked: {', '.join(f'{one} ({RULES[one].title})' for one in comparison.silenced)}"
        )
    return lines


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why results are missing, one line a reason however many methods and seeds it struck."""
    struck: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        for record in row.missing:
            struck.setdefault((record.status, record.message), {}).setdefault(row.title, []).append(
                record.seed
            )
    lines = []
    for (status, message), seeds in struck.items():
        every_seed = all(
            len(seeds[row.title]) == len(row.missing) and not row.seeds
            for row in rows
            if row.title in seeds
        )
        who = [
            title if every_seed else f"{title} seed {', '.join(map(str, found))}"
            for title, found in seeds.items()
        ]
        lines.append(f"{', '.join(who)}: {status}: {message}")
    return lines


def attempts(records: Sequence[Record]) -> list[str]:
    """Who had to be tried again, and how the attempts before ended."""
    return [
        f"{title_of(record.method_name)} seed {record.seed}{' (source)' * record.is_source}: attempt {len(record.attempts) + 1}; "
        f"before: {'; '.join(record.attempts)}"
        for record in records
        if record.attempts
    ]


def grouped_findings(comparison: Comparison) -> list[tuple[Finding, tuple[str, ...]]]:
    """Findings, one for all cells of which the same is said, each with who they are."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in comparison.findings():
        groups.setdefault(
            (finding.rule, finding.severity, finding.evidence, finding.advice), []
        ).append(finding)
    return [(found[0], tuple(finding.subject for finding in found)) for found in groups.values()]


def _finding_lines(comparison: Comparison) -> list[str]:
    """A line a finding; of many that differ in their figures alone the first ones and how many more there are."""
    by_advice: dict[tuple[str, str, str], list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, who in grouped_findings(comparison):
        by_advice.setdefault((finding.rule, finding.severity, finding.advice), []).append(
            (finding, who)
        )
    lines = []
    for (rule, severity, advice), found in by_advice.items():
        shown = found if len(found) <= MOST_ALIKE else found[: MOST_ALIKE - 1]
        lines += [
            f"{rule} {severity} {who[0] if len(who) == 1 else f'{len(who)} cells'}: {one.evidence} → {advice}"
            for one, who in shown
        ]
        if len(found) > len(shown):
            more = sum(len(who) for _, who in found[len(shown) :])
            lines.append(
                f"{rule} {severity} {more} more cells, with other figures; a report (--peft-report) has them all"
            )
    return lines


def source_costs(rows: Sequence[Row]) -> list[str]:
    """What training the sources of a method took, a line a method."""
    return [
        f"{row.title}: its sources were trained once, {in_seconds(row.mean('source_seconds'))} in all, not counted in its train time."
        for row in rows
        if "source_seconds" in row.figures
    ]
