"""Compact letter display: methods that share a letter cannot be told apart."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations


def letters(count: int, separable: Sequence[tuple[int, int]]) -> list[str]:
    """Return the compact letter display of `count` methods, best first.

    Two methods share a letter unless the pair is in `separable`. A letter is a clique of the
    methods that cannot be told apart, and the letters cover all their pairs: Gramm, Guo, Hüffner,
    Niedermeier, Piepho & Schmid, "Algorithms for compact letter displays: comparison and
    evaluation" (2007). The cover is greedy, so its time is polynomial in the number of methods.
    """
    apart = {frozenset(pair) for pair in separable}
    alike = [
        {other for other in range(count) if frozenset((one, other)) not in apart} - {one}
        for one in range(count)
    ]
    waiting = {pair for pair in combinations(range(count), 2) if frozenset(pair) not in apart}
    groups = [{one} for one in range(count) if not alike[one]]
    while waiting:
        group = _grown(set(min(waiting)), alike, waiting)
        waiting -= set(combinations(sorted(group), 2))
        groups.append(group)
    ordered = sorted(map(sorted, _needed(groups)))
    return [
        "".join(_letter(i) for i, group in enumerate(ordered) if method in group)
        for method in range(count)
    ]


def _grown(
    group: set[int], alike: Sequence[set[int]], waiting: Container[tuple[int, int]]
) -> set[int]:
    """Add methods that cannot be told apart from any of the group, until there is none.

    The one that brings most of the waiting pairs comes first, then the one of the highest rank.
    """

    def brought(method: int) -> int:
        return sum((min(one, method), max(one, method)) in waiting for one in group)

    while fitting := set.intersection(*(alike[one] for one in group)) - group:
        group |= {max(sorted(fitting), key=brought)}
    return group


def _needed(groups: list[set[int]]) -> list[set[int]]:
    """Leave out groups of which each pair is in another group too."""
    kept = list(groups)
    for group in groups:
        others = [other for other in kept if other is not group]
        pairs = combinations(sorted(group), 2)
        is_needed = len(group) == 1 or any(
            not any(other.issuperset(pair) for other in others) for pair in pairs
        )
        kept = [*others, group] if is_needed else others
    return kept


def _letter(index: int) -> str:
    """Return the letter of a group: a … z, then a1, b1, …"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
