"""A session that ended before its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Detached:
    """What a session left behind when it detached.

    `jobs` are the ids of unfinished jobs, `waiting` is the number of runs that need the results of
    others first, and `ended` the number of records so far.
    """

    jobs: Sequence[str]
    waiting: int
    ended: int
