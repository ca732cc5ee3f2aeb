"""A session that ended before its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Detached:
    """What a session left behind when it detached.

    `jobs` are the ids of unfinished jobs, and `waiting` is the number of runs that need the results
    of others first.
    """

    jobs: Sequence[str]
    waiting: int
