"""Compact letter display: methods that share a letter cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence


def letters(count: int, separable: Sequence[tuple[int, int]]) -> list[str]:
    """Return the compact letter display of `count` methods, best first.

    Two methods share a letter unless the pair is in `separable`. Insert-and-absorb algorithm:
    Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons" (2004).
    """
    groups = [frozenset(range(count))] if count else []
    for first, second in separable:
        both = frozenset((first, second))
        split = {
            part
            for group in groups
            for part in ((group - {first}, group - {second}) if both <= group else (group,))
        }
        groups = [group for group in split if not any(group < other for other in split)]
    ordered = sorted(groups, key=sorted)
    return [
        "".join(_letter(i) for i, group in enumerate(ordered) if method in group)
        for method in range(count)
    ]


def _letter(index: int) -> str:
    """Return the letter of a group: a … z, then a1, b1, …"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
