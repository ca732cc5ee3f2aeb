"""A limit of lines a second: what is left out is counted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from peft_methods.utils.words import counted


class LineLimit:
    """Allows `most` lines within a second, and counts the others by what they are about."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=most)
        self._left_out: Counter[str] = Counter()

    def allows(self, about: str) -> bool:
        """Whether a line may be written now. If not, it is counted as one `about` this."""
        now, times = self._clock(), self._times
        if len(times) == times.maxlen and now - times[0] < 1:
            self._left_out[about] += 1
            return False
        times.append(now)
        return True

    def left_out(self) -> str:
        """Name what was left out since the last call: '30 more lines: 12 started, 18 ok', or ''."""
        if not self._left_out:
            return ""
        parts = ", ".join(f"{count:,} {about}" for about, count in self._left_out.items())
        text = f"{counted(self._left_out.total(), 'more line')}: {parts}"
        self._left_out.clear()
        return text
