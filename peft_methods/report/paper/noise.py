"""The paragraph and the table on where the noise of the means comes from."""

from __future__ import annotations

from peft_methods.analysis.noise_sources import noise_sources
from peft_methods.analysis.variance_parts import Shares
from peft_methods.report.noise import NoiseWords, share_text
from peft_methods.report.paper.english import joined
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import table


def noise(study: Study) -> list[str]:
    """Return a paragraph and a table; empty without two seeds of any method."""
    found = noise_sources(study.comparison, study.recipe)
    if found is None:
        return []
    words = NoiseWords(found)
    lines = [
        [study.title(method), *_cells(shares, words)] for method, shares in found.by_method.items()
    ]
    if found.together is not None:
        lines.append(["All methods", *_cells(found.together, words)])
    name = f"t-noise-{study.label}"
    caption = f"Shares of the variance of each mean, with 95% intervals{study.of}"
    return [
        _paragraph(words, name),
        table(name, caption, ("Method", *words.headings), lines, wide=True),
    ]


def _cells(shares: Shares, words: NoiseWords) -> list[str]:
    return [_percent(share_text(share)) for share in words.in_order(shares)]


def _percent(text: str) -> str:
    return text.replace(" %", "%")


def _paragraph(words: NoiseWords, name: str) -> str:
    found = words.found
    rows, _, seeds, *_ = map(_percent, map(share_text, words.in_order(words.shares)))
    of = "all methods together" if found.together else "the first method"
    return joined(
        f"@{name} divides the variance of each mean over {words.sizes} into its parts"
        f"{cited('bouthillier2021')}: for {of}, the choice of test rows brings {rows} and the "
        f"seeds, which vary {words.varied}, bring {seeds}.",
        "The rest is the variance of single answers: models of equal quality answer different rows "
        "correctly.",
        "The parts of the seeds that were varied alone need not add up to the share of the seeds."
        if found.parts
        else "",
        words.advice,
    )
