"""Pareto-optimal rows of a table of costs."""

from __future__ import annotations

import numpy as np

from peft_methods.analysis.samples import Array


def pareto(costs: Array) -> list[bool | None]:
    """Return which rows of `costs` (rows, criteria; lower is better) are Pareto-optimal.

    A row with a missing (nan) value is undecided (None) and dominates no other row.
    """
    known = ~np.isnan(costs).any(axis=1)
    found: list[bool | None] = []
    for row in costs:
        dominating = (costs[known] <= row).all(axis=1) & (costs[known] < row).any(axis=1)
        found.append(None if np.isnan(row).any() else not dominating.any())
    return found
