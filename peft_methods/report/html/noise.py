"""The table of the HTML report that says where the noise of the means comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.noise_sources import NoiseSources, noise_sources
from peft_methods.analysis.sections import Section
from peft_methods.analysis.variance_parts import Share, Shares
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.noise import NoiseWords, share_text
from peft_methods.report.palette import style_of

TOGETHER = "All methods"


@dataclass(frozen=True)
class NoiseView:
    """The table, and how to read it."""

    table: Table
    text: str


def noise_view(section: Section, sections: Sequence[Section]) -> NoiseView | None:
    """Return the view of a section; None without two seeds of any method.

    Other sections may tell what single parts of its seeds bring.
    """
    others = [one.comparison for one in sections]
    found = noise_sources(section.comparison, section.recipe, others)
    return None if found is None else NoiseView(noise_table(found), noise_text(found))


def noise_table(found: NoiseSources) -> Table:
    """Build one row per method: the shares of its mean's variance, and its standard deviation."""
    words = NoiseWords(found)
    lines = [
        Line(title_of(method), _items(shares, words), style_of(method).color)
        for method, shares in found.by_method.items()
    ]
    if found.together is not None:
        lines.append(Line(TOGETHER, _items(found.together, words)))
    unit = ", ".join(filter(None, ["SD of the mean", found.metric.points]))
    return Table("Method", (unit, *words.headings), tuple(lines))


def _items(shares: Shares, words: NoiseWords) -> tuple[Item, ...]:
    unit = words.found.metric.unit
    return (
        Item(unit.number(shares.deviation, unit.decimals + 1), shares.deviation),
        *(_item(share) for share in words.in_order(shares)),
    )


def _item(share: Share | None) -> Item:
    sort = None if share is None else share.estimate or 0.0
    return Item(share_text(share), sort)


def noise_text(found: NoiseSources) -> str:
    """Explain the table."""
    words = NoiseWords(found)
    alone = (
        " Parts of the seeds are from sessions in which they vary alone; they need not add up to "
        "the share of the seeds."
        if found.parts
        else ""
    )
    return (
        f"Shares of the variance of each mean over {words.sizes}, with 95 % intervals. Seeds vary "
        f"{words.varied}. Single answers: models of equal quality answer different rows "
        f"correctly; more seeds and more rows both reduce this part.{alone} {words.advice}"
    ).rstrip()
