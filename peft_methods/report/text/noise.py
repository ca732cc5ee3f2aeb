"""The note below the table that says where the noise of the means comes from."""

from __future__ import annotations

from peft_methods.analysis.comparison import Comparison, title_of
from peft_methods.analysis.noise_sources import NoiseSources, noise_sources
from peft_methods.report.noise import TITLES, NoiseWords, share_text


def noise_notes(comparison: Comparison) -> list[str]:
    """Return the notes of each recipe with two seeds or more: all methods, then each of them."""
    lines = []
    for recipe in comparison.rankings:
        found = noise_sources(comparison, recipe)
        if found is not None:
            where = f"{recipe}: " if len(comparison.rankings) > 1 else ""
            lines += [where + _of_all(found), *filter(None, [_of_each(found)])]
    return lines


def _of_all(found: NoiseSources) -> str:
    """Return the shares of all methods together, or of the only one."""
    words = NoiseWords(found)
    of = "a mean" if found.together else title_of(next(iter(found.by_method)))
    listed = ", ".join(
        f"{heading[0].lower()}{heading[1:]} {share_text(share)}"
        for heading, share in zip(words.headings, words.in_order(words.shares), strict=True)
        if share is not None
    )
    return (
        f"Where the noise of {of} over {words.sizes} comes from (shares of its variance, in "
        f"parentheses their 95 % intervals; seeds vary {words.varied}): {listed}. {words.advice}"
    ).rstrip()


def _of_each(found: NoiseSources) -> str:
    """Return the shares of test rows and seeds for each method; empty for a single one."""
    if len(found.by_method) < 2:
        return ""
    each = "; ".join(
        f"{title_of(method)} {share_text(shares.rows)} and {share_text(shares.seeds)}"
        + "".join(
            f", {TITLES[part].lower()} alone {share_text(share)}"
            for part, share in shares.parts.items()
        )
        for method, shares in found.by_method.items()
    )
    return f"By method, test rows and seeds: {each}."
