"""The tables of results."""

from __future__ import annotations

from collections.abc import Callable

from peft_methods.analysis.comparison import Row
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING, have_heads, trainable_text
from peft_methods.report.paper.english import (
    formatted,
    interval,
    p_value,
    plain,
    ratio,
    share,
    with_spread,
)
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import table
from peft_methods.report.text.columns import shown_qualities
from peft_methods.report.text.costs import COST_COLUMNS

RATIOS = {
    "Time": "train_seconds",
    "Memory": "peak_memory_bytes",
    "Parameters": "trainable_parameters",
    "Checkpoint": "checkpoint_bytes",
}
Cell = Callable[[Study, Row], str]


def main_table(study: Study) -> str:
    """Return one row per method: quality with interval and group, parameters, time and memory.

    Columns without any value are left out.
    """
    columns = _columns(study)
    shown = {
        head: cell
        for head, cell in columns.items()
        if any(cell(study, row) != MISSING for row in study.measured)
    }
    lines = [
        [_name(study, row), *(cell(study, row) for cell in shown.values())] for row in study.rows
    ]
    quality = "Quality and costs" if study.has_quality else "Costs"
    spread = (
        "mean ± standard deviation over seeds"
        if any(len(row.seeds) > 1 for row in study.rows)
        else "one seed, no spread"
    )
    caption = f"{quality}{study.of} ({spread})"
    return table(f"t-main-{study.label}", caption, ("Method", *shown), lines, wide=True)


def _columns(study: Study) -> dict[str, Cell]:
    first = study.ranking.metric
    others = [name for name in shown_qualities(study.rows, study.ranking) if name != first]
    return {
        METRICS[first].title: _figure(first),
        "95% interval": _interval,
        "Group": lambda study, row: study.ranking.groups.get(row.method, MISSING),
        **{METRICS[other].title: _figure(other) for other in others},
        f"Trained{' (method + head)' * have_heads(study.rows)}": _parameters,
        "Share": lambda study, row: _share(row),
        "Training time": _figure("train_seconds"),
        "Peak memory": _figure("peak_memory_bytes"),
    }


def _figure(name: str) -> Cell:
    return lambda study, row: with_spread(name, row.metrics.get(name))


def _interval(study: Study, row: Row) -> str:
    found = study.ranking.intervals.get(row.method)
    return interval(study.quality, *found) if found else MISSING


def _parameters(study: Study, row: Row) -> str:
    return trainable_text(row)


def _share(row: Row) -> str:
    return share(row.mean("trainable_share")) if "trainable_share" in row.metrics else MISSING


def _name(study: Study, row: Row) -> str:
    if not row.metrics:
        return f"{study.title(row.method)} ({row.missing[0].status})"
    seeds = (
        f" ({len(row.seeds)} of {len(row.seeds) + len(row.missing)} seeds)" if row.missing else ""
    )
    return f"{study.title(row.method)}{seeds}"


def best_table(study: Study) -> str:
    """Return every compared method's difference to the best one; empty without a comparison."""
    if not study.is_compared:
        return ""
    best = study.ranking.order[0]
    pairs = [pair.reversed() for pair in study.pairs_of(best)]
    lines = [
        [
            study.title(pair.first),
            plain(pair.metric, pair.difference),
            interval(pair.metric, pair.low, pair.high),
            p_value(pair.p),
        ]
        for pair in pairs
    ]
    unit = ", in points" * study.quality.is_share
    caption = f"Difference of {study.metric} to {study.title(best)}{unit}{study.of}"
    difference = study.quality.points.capitalize() or "Difference"
    head = ("Method", difference, "95% interval", "_p_ (Holm)")
    return table(f"t-best-{study.label}", caption, head, lines)


def ratio_table(study: Study) -> str:
    """Return costs as multiples of full fine-tuning's; empty if it has no figures or is alone."""
    ratios = {
        head: found
        for head, name in RATIOS.items()
        if (found := {row.method: value for row, value in study.ratios(name)})
    }
    if not ratios:
        return ""
    others = [row.method for row in study.measured if row.method != METHODS.reference]
    lines = [
        [study.title(method), *(_ratio(found.get(method)) for found in ratios.values())]
        for method in others
    ]
    return table(
        f"t-ratios-{study.label}",
        f"Costs as multiples of full fine-tuning's{study.of}",
        ("Method", *ratios),
        lines,
    )


def _ratio(value: float | None) -> str:
    return MISSING if value is None else ratio(value)


def device_table(study: Study) -> str:
    """Return further measurements on a GPU besides time and memory; empty on a CPU."""
    rows = [
        row
        for row in study.measured
        if "step_median_seconds" in row.metrics and "train_reserved_bytes" in row.metrics
    ]
    lines = [
        [study.title(row.method), *(_mean(row, name) for name in COST_COLUMNS.values())]
        for row in rows
    ]
    caption = f"Further costs on the device (means over seeds){study.of}"
    return table(f"t-device-{study.label}", caption, ("Method", *COST_COLUMNS), lines, wide=True)


def _mean(row: Row, name: str) -> str:
    return formatted(name, row.mean(name)) if name in row.metrics else MISSING
