"""The part of the paper on all recipes together: interquartile means and profiles."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.data_sets import DataSetSummary, summarize_data_sets
from peft_methods.report.paper.charts import PaperFigure, description
from peft_methods.report.paper.english import counted, joined, tidy
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, table
from peft_methods.report.text.data_sets import HEADINGS, absent, better_heading, cells, has_rivals

LEAD = (
    "@t-all summarises {count} by the interquartile mean{rliable}: the mean of the middle half of "
    "all runs. Scores are normalised such that 0 is the trivial baseline of the data set and 1 the "
    "best possible score. The 95% intervals come from a bootstrap over seeds within each data set; "
    "they hold for these data sets and test rows."
)
BETTER = (
    "The last column is the probability that a run is better than one of {best} on the same data "
    "set, averaged over data sets. It is not corrected for the number of methods, and no claim of "
    "better or worse rests on it."
)


def all_recipes(studies: Sequence[Study], figures: Sequence[PaperFigure]) -> list[str]:
    """Return heading, table, figure and paragraph; nothing for a single recipe."""
    summary = summarize_data_sets(studies[0].comparison)
    if summary is None or not summary.methods:
        return []
    best = escaped(title_of(summary.best))
    return [
        "== All Recipes Together",
        _table(summary),
        *(one.markup for one in figures),
        joined(
            LEAD.format(
                count=counted(len(summary.recipes), "recipe"), rliable=cited("agarwal2021rliable")
            ),
            BETTER.format(best=best) if has_rivals(summary) else "",
            description(figures),
            *(f"{escaped(line)}." for line in absent(summary)),
        ),
    ]


def _table(summary: DataSetSummary) -> str:
    headings = [*HEADINGS, *([better_heading(summary)] if has_rivals(summary) else [])]
    head = ["Method", *(escaped(tidy(heading)) for heading in headings)]
    lines = [
        [escaped(title_of(method)), *(escaped(tidy(cell)) for cell in cells(one))][: len(head)]
        for method, one in summary.methods.items()
    ]
    return table("t-all", "All recipes together: normalised scores", head, lines, wide=True)
