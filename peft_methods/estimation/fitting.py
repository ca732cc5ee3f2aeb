"""What fits into a GPU: the largest batch and length, found with few estimates."""

from __future__ import annotations

from collections.abc import Callable

from peft_methods.estimation.results import MemoryEstimate, Verdict

TRIES = 12  # estimates of one search at most
Needed = Callable[[int], float]  # a batch or a length -> the bytes that it needs


def needed_bytes(memory: MemoryEstimate) -> float:
    """Return the memory that a GPU must have for a run to fit for certain."""
    return memory.device.high


def verdict_of(memory: MemoryEstimate, limit: float) -> Verdict:
    """Return "yes", "no" or "unsure": see `Fit`."""
    if needed_bytes(memory) <= limit:
        return "yes"
    return "no" if memory.device.low > limit else "unsure"


def largest_that_fits(needed: Needed, limit: float, start: int, most: int, *, step: int = 1) -> int:
    """Return the largest multiple of `step`, up to `most`, that needs at most `limit` bytes.

    0 if the smallest does not fit. `needed` must not fall; it is close to linear, so two estimates
    tell where the limit is reached, and two more mostly prove it. The result was always estimated
    itself. With `TRIES` estimates the search ends with the largest that was found to fit.
    """
    search = _Search(needed, limit, step, most // step)
    search.ask(min(max(1, start // step), max(1, most // step)))
    while search.is_open and search.tries < TRIES:
        search.ask(search.next())
    return search.fits * step


class _Search:
    """The bracket of a search, in steps: `fits` does, and `beyond` does not."""

    def __init__(self, needed: Needed, limit: float, step: int, most: int) -> None:
        self._needed, self._limit, self._step = needed, limit, step
        self.fits, self.beyond, self.tries = 0, most + 1, 0
        self._known = dict[int, float]()

    @property
    def is_open(self) -> bool:
        return self.beyond - self.fits > 1

    def ask(self, size: int) -> None:
        self.tries += 1
        self._known[size] = self._needed(size * self._step)
        if self._known[size] <= self._limit:
            self.fits = max(self.fits, size)
        else:
            self.beyond = min(self.beyond, size)

    def next(self) -> int:
        """Return the size to ask for: where a line meets the limit; sometimes between its ends."""
        lowest, highest = self.fits + 1, self.beyond - 1
        if len(self._known) == 1:
            (only,) = self._known
            guess = 2 * only if self.fits else only // 2
        elif self.tries % 4 == 3:  # a curve may creep towards the limit from one side
            guess = int((lowest * highest) ** 0.5)
        else:
            guess = self._on_a_line()
        return min(max(guess, lowest), highest)

    def _on_a_line(self) -> int:
        """Return where the line through the two sizes nearest to the limit meets it."""
        near = sorted(self._known, key=lambda size: abs(self._known[size] - self._limit))[:2]
        first, second = sorted(near)
        rise = (self._known[second] - self._known[first]) / (second - first)
        if rise <= 0:
            return self.beyond - 1
        return int(first + (self._limit - self._known[first]) / rise)
