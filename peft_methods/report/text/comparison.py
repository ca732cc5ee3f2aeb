"""The comparison table: for the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from peft_methods.analysis.comparison import Comparison, MetricSummary, Row
from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.recommendations import recommend
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING, seconds_digits
from peft_methods.report.text.costs import cost_table
from peft_methods.report.text.notes import BEST, notes
from peft_methods.report.text.ranking import ranking_table
from peft_methods.report.text.setup import setup_line
from peft_methods.utils import sanitize

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


def terminal_table(comparison: Comparison, limits: Constraints | None = None) -> str:
    """Format the full comparison for the terminal: setup, tables, recommendations, and notes."""
    return "\n\n".join(
        [
            *_parts(comparison, limits, "simple", sanitize.visible),
            *map(sanitize.visible, notes(comparison)),
        ]
    )


def markdown_table(comparison: Comparison, limits: Constraints | None = None) -> str:
    """Format the full comparison as GitHub Markdown. Untrusted text is escaped."""
    parts = _parts(comparison, limits, "github", sanitize.markdown)
    return (
        "\n\n".join([*parts, *(f"- {sanitize.markdown(line)}" for line in notes(comparison))])
        + "\n"
    )


def _parts(
    comparison: Comparison, limits: Constraints | None, style: str, escape: Callable[[str], str]
) -> Iterator[str]:
    """Yield for each recipe: setup, comparison, ranking, costs, recommendations."""
    answers = recommend(comparison, limits)
    for recipe, ranking in comparison.rankings.items():
        rows = [row for row in comparison.rows() if row.recipe == recipe]
        lines = [[escape(run) for run in line] for line in _lines(rows, ranking)]
        yield escape(setup_line(comparison, recipe))
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
    comparison: Comparison, limits: Constraints
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
    return {name: row.metrics[name].mean if name in row.metrics else None for name in METRICS}


_ALIGN = ("left", *["right"] * (len(HEADINGS) - 1))


def _lines(rows: Sequence[Row], ranking: Ranking) -> list[list[str]]:
    best = {name: _best(name, rows) for name in RANKED}
    digits = seconds_digits(rows)
    return [_line(row, best, ranking, digits) for row in rows]


def _best(name: str, rows: Sequence[Row]) -> float | None:
    values = [row.metrics[name].mean for row in rows if name in row.metrics]
    if len(values) < 2:
        return None
    return max(values) if METRICS[name].higher_is_better else min(values)


def _line(row: Row, best: dict[str, float | None], ranking: Ranking, digits: int) -> list[str]:
    if not row.metrics:
        return [row.title, row.missing[0].status, *[MISSING] * (len(HEADINGS) - 2)]
    title = row.title + (
        f" ({len(row.missing)} of {len(row.missing) + len(row.seeds)} seeds failed)"
        if row.missing
        else ""
    )

    def run(name: str, text: str) -> str:
        figure = row.metrics.get(name)
        return (
            text + (f" {BEST}" if figure is not None and figure.mean == best[name] else "  ")
            if figure
            else MISSING
        )

    return [
        title,
        *(
            run(
                name,
                _with_spread(
                    row.metrics.get(name),
                    100,
                    1,
                    missing=", one seed: no spread" if name == ranking.metric else "",
                ),
            )
            for name in ("accuracy", "macro_f1")
        ),
        ranking.groups.get(row.method, MISSING),
        f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}",
        f"{100 * row.mean('trainable_share'):.2f}",
        run("train_seconds", _with_spread(row.metrics.get("train_seconds"), 1, digits, " s")),
        run("samples_per_second", f"{row.mean('samples_per_second'):,.1f}"),
        run("peak_memory_bytes", f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB"),
    ]


def _with_spread(
    figure: MetricSummary | None, scale: float, digits: int, unit: str = "", missing: str = ""
) -> str:
    """Format a mean and its standard deviation, or `missing` in its place for a single seed."""
    if figure is None:
        return MISSING
    spread = missing if figure.deviation is None else f" ± {scale * figure.deviation:.{digits}f}"
    return f"{scale * figure.mean:.{digits}f}{spread}{unit}"
