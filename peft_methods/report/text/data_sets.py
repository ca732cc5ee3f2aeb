"""Several recipes together as text: interquartile means, and which method is more often better."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.data_sets import DataSetSummary, Excluded, Interval, MethodSummary
from peft_methods.report.formatting import MISSING
from peft_methods.report.text.layout import Layout
from peft_methods.utils.words import counted

HEADINGS = ("IQM", "95 %\ninterval", "Raw mean,\n%")
SUMMARY_NOTE = (
    "IQM: interquartile mean, the mean of the middle half of all runs, of normalised scores: 0 is "
    "the trivial baseline of the data set (for classes: the most frequent one), 1 the best "
    "possible score. Every data set counts alike. Intervals: 95 %, stratified bootstrap over "
    "seeds; they hold for these data sets and test rows, not for others."
)
BETTER_NOTE = (
    "Better in: the probability that a run is better than one of the method with the highest IQM "
    "on the same data set, averaged over data sets; 50 % means no difference. It is not corrected "
    "for the number of methods."
)
WHY_EXCLUDED = {
    Excluded.NOT_EVERYWHERE: "no result on",
    Excluded.ERROR: "an error of a validity rule on",
}


def summary_parts(summary: DataSetSummary, layout: Layout) -> Iterator[str]:
    """Yield the parts of the summary: title, table, and what is not in it."""
    yield layout.prose(summary_title(summary), "title")
    if summary.methods:
        headings = [
            "Method",
            *HEADINGS,
            *([better_heading(summary)] if has_rivals(summary) else []),
        ]
        lines = [
            [layout.escape(title_of(method)), *cells(one)][: len(headings)]
            for method, one in summary.methods.items()
        ]
        yield from layout.tables(headings, lines)
    if missing := absent(summary):
        yield "\n".join(layout.prose(f"- {line}", "warning") for line in missing)


def summary_title(summary: DataSetSummary) -> str:
    """Name the recipes: '3 recipes together: a, b, c'."""
    return f"{counted(len(summary.recipes), 'recipe')} together: {', '.join(summary.recipes)}"


def has_rivals(summary: DataSetSummary) -> bool:
    """Whether there is a method to compare with the one of the highest mean."""
    return len(summary.methods) > 1


def better_heading(summary: DataSetSummary) -> str:
    """Head the column of the probability to be better than the best: 'Better than\\nLoRA in'."""
    return f"Better than\n{title_of(summary.best)} in"


def cells(one: MethodSummary) -> list[str]:
    """Format a method: IQM, its interval, the raw mean, and the probability to be better."""
    return [
        f"{one.iqm:.3f}",
        interval_text(one.interval),
        MISSING if one.raw_mean is None else f"{100 * one.raw_mean:.1f}",
        better_text(one),
    ]


def interval_text(interval: Interval | None) -> str:
    """Format an interval: '0.512 to 0.634'."""
    return MISSING if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def better_text(one: MethodSummary) -> str:
    """Format a probability with its interval: '42 % (30 to 55)'."""
    if one.better is None:
        return MISSING
    if one.better_interval is None:
        return f"{100 * one.better:.0f} %"
    low, high = (100 * end for end in one.better_interval)
    return f"{100 * one.better:.0f} % ({low:.0f} to {high:.0f})"


def absent(summary: DataSetSummary) -> list[str]:
    """Name the methods and recipes that are not in the summary, with the reason."""
    lines = [
        f"{title_of(method)} is not summarised: {WHY_EXCLUDED[reason]} {', '.join(recipes)}"
        for method, (reason, recipes) in summary.excluded.items()
    ]
    if summary.left_out:
        names = ", ".join(summary.left_out)
        lines.append(f"{names}: not in the summary, since there is no quality to normalise")
    return lines


def summary_notes(summary: DataSetSummary | None) -> list[str]:
    """Explain how to read the summary; nothing without one."""
    if summary is None or not summary.methods:
        return []
    return [SUMMARY_NOTE, *([BETTER_NOTE] if has_rivals(summary) else [])]
