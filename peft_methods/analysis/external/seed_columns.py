"""Columns that are the seeds of one figure: `Acc (seed 0)`, `Acc (seed 1)`; `Run 1`, `Run 2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from peft_methods.analysis.external.columns import TEXT, Column
from peft_methods.analysis.external.figures import Figures, figures_of
from peft_methods.analysis.external.headers import METRICS, Meaning, meanings_of
from peft_methods.utils.units import Quantity, is_missing

SEED = re.compile(
    r"[\s_\-/.,:(\[]*(?<![a-z])(?:seed|run|trial|repeat|replicate|repetition|fold)"
    r"[\s_#=:\-]*(\d{1,10})[)\]]?",
    re.IGNORECASE,
)


def seed_groups(headers: Sequence[str]) -> dict[str, list[str]]:
    """Return the headers that differ in the number of a seed, by what is left of them."""
    found: dict[str, list[str]] = {}
    for header in headers:
        if len(SEED.findall(header)) == 1:
            found.setdefault(" ".join(SEED.sub(" ", header).split()), []).append(header)
    return {rest: group for rest, group in found.items() if len(group) > 1}


def meanings_of_seeds(rest: str, title: str) -> tuple[Meaning, ...]:
    """Return what seeds hold by the rest of their headers, or else by the one figure in the title.

    A title names no unit, so that only figures of quality are taken from it.
    """
    if rest.strip("()[] "):
        return tuple(one for one in meanings_of(rest) if one.column.kind != TEXT)
    named = {
        METRICS[word] for word in re.findall(r"[a-z0-9]+", title.casefold()) if word in METRICS
    }
    return meanings_of(named.pop()) if len(named) == 1 else ()


def mean_figures(
    headers: Sequence[str], meaning: Meaning, columns: Sequence[Sequence[str]]
) -> Figures:
    """Return the means over the columns, row by row; missing seeds are left out.

    All cells are read together: whether they are percentages is said by all of them.
    """
    rows = len(columns[0])
    both = figures_of(headers[0], meaning, [text for texts in columns for text in texts])
    seeds = [both.values[start : start + rows] for start in range(0, len(both.values), rows)]
    values = [_mean(meaning.column, one) for one in zip(*seeds, strict=True)]
    counts = [sum(one is not None for one in line) for line in zip(*seeds, strict=True)]
    names = ", ".join(map(repr, headers))
    said = [f"columns {names} are seeds: their mean was read as {meaning.column.field}"]
    written = sum(not is_missing(text) for texts in columns for text in texts)
    if lost := written - sum(counts) - len(both.memory_ran_out):
        said.append(f"columns {names}: {lost} cells could not be read and are missing")
    return replace(
        both,
        values=values,
        shares=[None] * rows,
        totals=[None] * rows,
        memory_ran_out={place % rows for place in both.memory_ran_out},
        remarks=said,
        also=tuple(headers[1:]),
    )


def _mean(column: Column, line: Sequence[Any]) -> Any:
    known = [one for one in line if isinstance(one, Quantity)]
    if column.is_series or not known:
        return () if column.is_series else None
    if len(known) == 1 or len({one.text for one in known}) == 1:
        return known[0]
    mean = fmean(one.value for one in known)
    return Quantity(
        f"{mean:.4g}",
        mean,
        known[0].unit,
        fmean(one.low for one in known),
        fmean(one.high for one in known),
        stdev(one.value for one in known),
    )
