"""Long tables in parts: one for each family of methods."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.methods.registry import METHODS

FEWEST = 20  # rows of a table that is parted


def family_of(method: str) -> str:
    """Return the family of a method; "other" for an unknown name."""
    info = METHODS.info(method)
    return "other" if info is None else info.family


def by_family(methods: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return the title of each family and the positions of its methods, in the order given.

    A short table, and one of a single family, is one part without a title.
    """
    parts: dict[str, list[int]] = {}
    for number, method in enumerate(methods):
        parts.setdefault(family_of(method), []).append(number)
    if len(methods) < FEWEST or len(parts) == 1:
        return [("", list(range(len(methods))))]
    return [
        (f"{family.replace('_', ' ').capitalize()} ({len(own)})", own)
        for family, own in parts.items()
    ]
