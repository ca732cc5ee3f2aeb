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

    @property
    def digits(self) -> int:
        """The number of significant digits: 3.240 has three, 5410 four, 5400 two.

        One zero at the end of a whole number may be a digit like any other; two are rounding.
        """
        number = self._number
        is_digit = "." not in number and number[-1:] == "0" and number[-2:] != "00"
        return len(number.replace(".", "").strip("0")) + is_digit

    @property
    def written(self) -> int:
        """The number of digits as they are written, with zeros at the end: 110 has three."""
        return max(1, len(self._number.replace(".", "").lstrip("0")))

    @property
    def _number(self) -> str:
        return "".join(one for one in self.text.partition("e")[0] if one.isdigit() or one == ".")

    @classmethod
    def exactly(cls, value: float) -> RoundedCount:
        """Make a count that is known to the last digit."""
        return cls(f"{value:,.0f}", value, value, value)


def decimals_of(share: float) -> int:
    """Return the decimals of a share as it was written: 0.9534, or 95.34 %, has four."""
    return len(f"{share:.6f}".rstrip("0").partition(".")[2])
