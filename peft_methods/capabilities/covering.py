"""Pairwise covering: a few rows in which each pair of values of two factors occurs.

A greedy generator. The usual libraries take no rows that are there already, or no set of allowed
rows, and most rows are given here: each method on each family.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

Row = tuple[str, ...]  # one value of each factor
Pair = tuple[int, str, int, str]  # factor, its value, another factor, its value


def pairs_of(row: Row) -> Iterator[Pair]:
    """Yield the pairs that a row covers."""
    for (one, a), (other, b) in itertools.combinations(enumerate(row), 2):
        yield one, a, other, b


def covering(
    factors: Sequence[Sequence[str]], allowed: Callable[[Row], bool], given: Iterable[Row] = ()
) -> list[Row]:
    """Return rows that cover each pair of values that an allowed row can cover.

    Pairs of the `given` rows are covered already. The result is the same for the same arguments. A
    value that is added at the end of a factor changes few rows.
    """
    covered = {pair for row in given for pair in pairs_of(row)}
    rows: list[Row] = []
    for one, other in itertools.combinations(range(len(factors)), 2):
        for pair in itertools.product((one,), factors[one], (other,), factors[other]):
            if pair in covered:
                continue
            row = _best(factors, pair, covered, allowed)
            if row is not None:
                rows.append(row)
                covered.update(pairs_of(row))
    return rows


def _best(
    factors: Sequence[Sequence[str]],
    pair: Pair,
    covered: set[Pair],
    allowed: Callable[[Row], bool],
) -> Row | None:
    """Return the allowed row with this pair that covers most new pairs, the first of equal ones."""
    one, a, other, b = pair
    choices = [
        (a,) if place == one else (b,) if place == other else values
        for place, values in enumerate(factors)
    ]
    best, most = None, 0
    for row in itertools.product(*choices):
        new = sum(each not in covered for each in pairs_of(row))
        if new > most and allowed(row):
            best, most = row, new
    return best
