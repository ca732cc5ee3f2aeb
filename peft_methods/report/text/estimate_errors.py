"""Errors of estimates as text: all runs, then by method and by model."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.predicted import TITLES, summaries
from peft_methods.analysis.validation import Validation
from peft_methods.report.text.layout import Layout
from peft_methods.utils.words import counted

HEADINGS = ("Runs", "Median", "95 %", "Worst", "Too low", "In range")


def validation_text(validation: Validation, width: int | None = None) -> str:
    """Format the errors of estimates against measured values."""
    layout = Layout(width=width, is_wrapped=True)
    parts = [layout.prose(_heading(validation))]
    for metric, title in TITLES.items():
        lines = [
            [
                one.name,
                str(one.count),
                f"{one.median:.1%}",
                f"{one.p95:.1%}",
                f"{one.worst:+.1%}",
                f"{one.too_low:.0%}",
                f"{one.in_range:.0%}",
            ]
            for one in summaries(validation.errors, metric)
        ]
        if lines:
            parts.append(layout.table([f"Errors of {title}", *HEADINGS], lines))
    if validation.errors:
        parts.append(
            layout.prose(
                "Errors are shares of the measured value: the median and the 95th percentile "
                "without sign, and the worst one, above 0 where too much was estimated. Too low: "
                "runs whose estimate is more than 2 % below. In range: runs whose measured value "
                "is in the estimated range."
            )
        )
    parts += [layout.prose(line) for line in _failed(validation)]
    return "\n\n".join(parts)


def _heading(validation: Validation) -> str:
    if not validation.runs:
        return "No finished runs on GPUs: there is nothing to compare estimates with."
    kept = f", {validation.stored} by the estimate of their time" if validation.stored else ""
    times = (
        f", training times of {validation.stored_times} by the estimate in their record"
        if validation.stored_times
        else ""
    )
    return f"{counted(validation.runs, 'finished run')} on GPUs{kept}{times}"


def _failed(validation: Validation) -> Iterator[str]:
    for reason, runs in validation.failed.items():
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        yield f"no estimate for {', '.join(runs[:3])}{more}: {reason}"
