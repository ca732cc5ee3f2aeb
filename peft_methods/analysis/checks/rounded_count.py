"""A count as it is written in a table, which may be rounded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RoundedCount:
    """A count as it is written, with the range of values it may stand for.

    1.30M stands for anything from 1,295,000 to 1,310,000: it may be rounded or cut off.
    """

    text: str
    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value may be written like this."""
        return self.low <= value <= self.high

    @classmethod
    def exactly(cls, value: float) -> RoundedCount:
        """Make a count that is known to the last digit."""
        return cls(f"{value:,.0f}", value, value, value)
