"""The model of torch's caching allocator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.estimation.memory.allocator import (
    MIB,
    CachingAllocator,
    OutOfFakeMemory,
    rounded,
    segment_size,
)

SIZES = st.lists(st.integers(1, 64 * MIB), max_size=30)


@pytest.mark.parametrize(
    ("size", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 11 * MIB, 12 * MIB),
    ],
)
def test_rounding(size: int, block: int, segment: int) -> None:
    assert rounded(size) == block
    assert segment_size(block) == segment


@given(SIZES, st.randoms(use_true_random=False))
def test_everything_is_given_back(sizes: list[int], random: object) -> None:
    allocator = CachingAllocator()
    places = [allocator.allocate(size) for size in sizes]
    assert len(set(places)) == len(places)
    assert sum(sizes) == allocator.requested <= allocator.allocated <= allocator.reserved
    random.shuffle(places)  # type: ignore[attr-defined]
    for place in places:
        allocator.free(place)
    assert (allocator.requested, allocator.allocated) == (0, 0)
    allocator.release_cached()
    assert allocator.reserved == 0
    assert allocator.peak_reserved >= allocator.peak_allocated >= allocator.peak_requested


@given(SIZES)
def test_freed_memory_serves_the_same_sizes_again(sizes: list[int]) -> None:
    allocator = CachingAllocator()
    for place in [allocator.allocate(size) for size in sizes]:
        allocator.free(place)
    before = allocator.reserved
    for size in sizes:
        allocator.allocate(size)
    assert allocator.reserved == before


def test_a_large_block_is_split_only_if_enough_is_left() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(20 * MIB))
    whole = allocator.allocate(19 * MIB)
    assert allocator.size_of(whole) == 20 * MIB, "1 MiB is not split off"
    allocator.free(whole)
    assert allocator.size_of(allocator.allocate(18 * MIB)) == 18 * MIB
    assert allocator.reserved == 20 * MIB


def test_a_limit_is_kept_after_unused_segments_are_given_back() -> None:
    allocator = CachingAllocator(limit=40 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    allocator.allocate(36 * MIB)
    assert allocator.reserved == 36 * MIB
    with pytest.raises(OutOfFakeMemory):
        allocator.allocate(12 * MIB)
