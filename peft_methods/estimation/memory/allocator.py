"""A model of torch's caching allocator for GPUs: rounding, segments, splitting and merging.

The rules are those of c10/cuda/CUDACachingAllocator.cpp with its default settings, of torch 2.1 to
2.13. One stream is modelled.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

KIB, MIB = 2**10, 2**20
SMALLEST = 512  # sizes are multiples of it
SMALL = MIB  # up to this size a block comes from the small pool
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB  # of blocks below 10 MiB; larger ones have a segment of their own size
OWN_SEGMENT = 10 * MIB
SEGMENT_STEP = 2 * MIB


def rounded(size: int) -> int:
    """Return the bytes of a block that holds `size` bytes."""
    return max(SMALLEST, -(-size // SMALLEST) * SMALLEST)


def segment_size(block: int) -> int:
    """Return the bytes that are taken from the driver for a block of this size."""
    if block <= SMALL:
        return SMALL_SEGMENT
    if block < OWN_SEGMENT:
        return LARGE_SEGMENT
    return -(-block // SEGMENT_STEP) * SEGMENT_STEP


class OutOfFakeMemory(Exception):
    """The limit does not hold the next block, not even after unused segments were returned."""


@dataclass(eq=False)
class _Block:
    """A part of a segment, in a list of neighbours."""

    address: int
    size: int
    is_small: bool
    is_free: bool = True
    before: _Block | None = None
    after: _Block | None = None

    @property
    def is_whole_segment(self) -> bool:
        return self.before is None and self.after is None


@dataclass
class CachingAllocator:
    """Allocates and frees blocks as torch does. All figures are bytes.

    `allocated` is what live blocks take, `requested` what was asked for, and `reserved` the
    segments. `limit` is the most that may be reserved (None: no limit).
    """

    limit: int | None = None
    allocated: int = 0
    requested: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_requested: int = 0
    peak_reserved: int = 0
    _next: int = 0
    _live: dict[int, tuple[_Block, int]] = field(default_factory=dict)
    _free: dict[bool, list[tuple[int, int, _Block]]] = field(
        default_factory=lambda: {True: [], False: []}
    )

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes and return the address. Raises `OutOfFakeMemory`."""
        wanted = rounded(size)
        block = self._best_fit(wanted) or self._new_segment(wanted)
        self._split(block, wanted)
        block.is_free = False
        self._live[block.address] = block, size
        self.allocated += block.size
        self.requested += size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_requested = max(self.peak_requested, self.requested)
        return block.address

    def free(self, address: int) -> None:
        """Free the block at this address and merge it with free neighbours."""
        block, size = self._live.pop(address)
        self.allocated -= block.size
        self.requested -= size
        block.is_free = True
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.is_free:
                self._forget(neighbour)
                block = _merged(block, neighbour)
        self._remember(block)

    def size_of(self, address: int) -> int:
        """Return the bytes of the live block at this address."""
        return self._live[address][0].size

    def release_cached(self) -> None:
        """Return all segments without live blocks to the driver, as `empty_cache` does."""
        for blocks in self._free.values():
            for _, _, block in [one for one in blocks if one[2].is_whole_segment]:
                self._forget(block)
                self.reserved -= block.size

    def reset_peaks(self) -> None:
        """Set all peaks to the levels of now."""
        self.peak_allocated, self.peak_requested = self.allocated, self.requested
        self.peak_reserved = self.reserved

    def _best_fit(self, wanted: int) -> _Block | None:
        blocks = self._free[wanted <= SMALL]
        place = bisect_left(blocks, (wanted, -1), key=lambda one: one[:2])
        if place == len(blocks):
            return None
        return blocks.pop(place)[2]

    def _new_segment(self, wanted: int) -> _Block:
        size = segment_size(wanted)
        if self.limit is not None and self.reserved + size > self.limit:
            self.release_cached()
            if self.reserved + size > self.limit:
                raise OutOfFakeMemory(
                    f"{size:,} bytes more than {self.reserved:,} exceed {self.limit:,}"
                )
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        block = _Block(self._next, size, is_small=wanted <= SMALL)
        self._next += size
        return block

    def _split(self, block: _Block, wanted: int) -> None:
        """Cut off what is left of a block if it is large enough to be of use."""
        left = block.size - wanted
        if left < SMALLEST or (not block.is_small and left <= SMALL):
            return
        rest = _Block(block.address + wanted, left, block.is_small)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, wanted
        self._remember(rest)

    def _remember(self, block: _Block) -> None:
        insort(
            self._free[block.is_small], (block.size, block.address, block), key=lambda one: one[:2]
        )

    def _forget(self, block: _Block) -> None:
        blocks = self._free[block.is_small]
        del blocks[bisect_left(blocks, (block.size, block.address), key=lambda one: one[:2])]


def _merged(block: _Block, neighbour: _Block) -> _Block:
    """Return the one block that two free neighbours make."""
    first, second = sorted((block, neighbour), key=lambda one: one.address)
    first.size += second.size
    first.after = second.after
    if second.after is not None:
        second.after.before = first
    return first
