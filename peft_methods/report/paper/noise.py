"""The paragraph and the table on where the noise of the means comes from."""

from __future__ import annotations

from peft_methods.analysis.noise_sources import NoiseSources, noise_sources
from peft_methods.analysis.variance_parts import Shares
from peft_methods.report.noise import (
    advice,
    headings,
    share_text,
    shares_in_order,
    sizes,
    varied,
)
from peft_methods.report.paper.english import joined
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import table


def noise(study: Study) -> list[str]:
    """Return a paragraph and a table; empty without two seeds of any method."""
    found = noise_sources(study.comparison, study.recipe)
    if found is None:
        return []
    lines = [
        [study.title(method), *_cells(shares, found)] for method, shares in found.by_method.items()
    ]
    if found.together is not None:
        lines.append(["All methods", *_cells(found.together, found)])
    name = f"t-noise-{study.label}"
    caption = f"Shares of the variance of each mean, with 95% intervals{study.of}"
    return [
        _paragraph(found, name),
        table(name, caption, ("Method", *headings(found)), lines, wide=True),
    ]


def _cells(shares: Shares, found: NoiseSources) -> list[str]:
    return [_percent(share_text(share)) for share in shares_in_order(shares, found)]


def _percent(text: str) -> str:
    return text.replace(" %", "%")


def _paragraph(found: NoiseSources, name: str) -> str:
    shares = found.together or next(iter(found.by_method.values()))
    rows, _, seeds, *_ = (_percent(share_text(one)) for one in shares_in_order(shares, found))
    of = "all methods together" if found.together else "the first method"
    return joined(
        f"@{name} divides the variance of each mean over {sizes(found)} into its parts"
        f"{cited('bouthillier2021')}: for {of}, the choice of test rows brings {rows} and the "
        f"seeds, which vary {varied(found)}, bring {seeds}.",
        "The rest is the variance of single answers: models of equal quality answer different rows "
        "correctly.",
        "The parts of the seeds that were varied alone need not add up to the share of the seeds."
        if found.parts
        else "",
        advice(shares),
    )
