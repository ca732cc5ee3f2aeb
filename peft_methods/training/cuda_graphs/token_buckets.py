"""The sizes of packed batches: few of them, so that a graph can be captured for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MULTIPLE = 64  # sizes are multiples of this number of tokens, for which products are fast
LARGEST_FILLING = 0.03  # of a batch's tokens that only fill it, on average
MOST_BUCKETS = 12
HEADROOM = 1.05  # of places, over the most that were seen


@dataclass(frozen=True)
class TokenBucket:
    """The size of a packed batch: its tokens, and its places whose outputs have a label."""

    tokens: int
    places: int

    def holds(self, tokens: int, places: int) -> bool:
        """Whether a batch fits."""
        return tokens <= self.tokens and places <= self.places


def token_buckets(
    batches: Sequence[tuple[int, int]], worst: TokenBucket
) -> tuple[TokenBucket, ...]:
    """Return few buckets, in rising order, for batches like these, each (tokens, places).

    They waste at most LARGEST_FILLING of the tokens, or as little as MOST_BUCKETS can. `worst` is
    the largest batch possible: the last bucket holds it, though it may never come.
    """
    tokens, places = (np.asarray(column) for column in zip(*batches, strict=True))
    top = int(min(1.1 * tokens.max(), worst.tokens))  # some batches are larger than those seen
    sizes = _least_filling(np.append(tokens, top))
    found, most = [], 0
    for size in sizes:
        in_bucket = places[tokens <= size]
        most = max(most, int(in_bucket.max()) if len(in_bucket) else 0)
        limit = min(HEADROOM * most, size, worst.places)
        found.append(TokenBucket(size, rounded(limit)))
    last = TokenBucket(rounded(worst.tokens), rounded(worst.places))
    return (*(one for one in found if one.tokens < last.tokens), last)


def rounded(size: float) -> int:
    """Return the next multiple of MULTIPLE."""
    return max(1, -(-int(np.ceil(size)) // MULTIPLE)) * MULTIPLE


def _least_filling(tokens: NDArray[np.int64]) -> list[int]:
    """Return the sizes, as few as fill little, that batches of these tokens are filled up to."""
    step = max(MULTIPLE, rounded(tokens.max() / 256))
    sizes = np.unique(-(-tokens // step) * step)
    # costs[i, j]: the tokens of all batches above size i - 1 and up to size j, filled up to size j
    counts = np.append(0, np.cumsum([(-(-tokens // step) * step == size).sum() for size in sizes]))
    costs = (counts[None, 1:] - counts[:-1, None]) * sizes[None, :].astype(float)
    costs[counts[:-1, None] >= counts[None, 1:]] = np.inf
    best: NDArray[np.float64] = costs[0]
    cuts: list[NDArray[np.int64]] = []
    most = min(MOST_BUCKETS, len(sizes))
    while best[-1] > (1 + LARGEST_FILLING) * tokens.sum() and len(cuts) + 1 < most:
        options = best[:-1, None] + costs[1:, :]  # the last bucket begins after size i
        cuts.append(options.argmin(0))
        best = options.min(0)
    chosen, at = [len(sizes) - 1], len(sizes) - 1
    for cut in reversed(cuts):
        at = int(cut[at])
        chosen.append(at)
    return [int(sizes[one]) for one in sorted(set(chosen))]
