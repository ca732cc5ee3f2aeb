"""Counts and lists as parts of English sentences, in digits."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: '1 run', '2 runs', '1,024 rows'."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def seeds_of(seeds: Iterable[int]) -> str:
    """Name seeds: 'seed 0', 'seeds 0, 1, 2'."""
    known = sorted(set(seeds))
    return f"seed{'s' * (len(known) != 1)} {', '.join(map(str, known))}"
