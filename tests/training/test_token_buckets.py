"""Buckets of packed batches: few, they hold every batch, and little of them is only filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.training.cuda_graphs.token_buckets import (
    LARGEST_FILLING,
    MOST_BUCKETS,
    MULTIPLE,
    TokenBucket,
    token_buckets,
)


@given(
    st.lists(st.tuples(st.integers(1, 9000), st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(0, 5000),
    st.integers(1, 14_000),
)
def test_buckets_rise_are_few_and_hold_every_batch(
    drawn: list[tuple[int, float]], more: int, tokens: int
) -> None:
    batches = [(size, int(size * share)) for size, share in drawn]
    worst = TokenBucket(*[max(column) + more for column in zip(*batches, strict=True)])
    buckets = token_buckets(batches, worst)
    sizes = [bucket.tokens for bucket in buckets]
    assert len(buckets) <= MOST_BUCKETS + 1
    assert sizes == sorted(set(sizes))
    assert all(
        size % MULTIPLE == 0 and bucket.places % MULTIPLE == 0
        for bucket in buckets
        for size in (bucket.tokens,)
    )
    assert all(any(one.holds(*batch) for one in buckets) for batch in batches)
    assert buckets[-1].holds(worst.tokens, worst.places)
    assert buckets[-1].holds(min(tokens, worst.tokens), 0)


@pytest.mark.parametrize(("size", "limit"), [(8, 0.06), (32, 0.04)])
def test_little_of_the_batches_of_a_chat_is_only_filled(size: int, limit: float) -> None:
    """Log-normal lengths with the median 300, at most 1,024 tokens; batches in random order."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(300), 0.6, (2, 500 * size)), 16, 1024).astype(int)
    seen, later = lengths.reshape(2, -1, size).sum(2).tolist()
    buckets = token_buckets(
        [(tokens, tokens // 2) for tokens in seen], TokenBucket(1024 * size, 1024 * size)
    )
    filled = [
        next(one.tokens for one in buckets if one.holds(tokens, tokens // 2)) for tokens in later
    ]
    assert sum(filled) / sum(later) - 1 < limit
    assert limit > LARGEST_FILLING


def test_batches_of_one_size_have_one_bucket() -> None:
    assert token_buckets([(256, 10)] * 9, TokenBucket(256, 256)) == (TokenBucket(256, 256),)


def test_no_bucket_has_more_places_than_tokens() -> None:
    buckets = token_buckets([(1000, 1000), (2000, 1990)], TokenBucket(4096, 4096))
    assert all(bucket.places <= bucket.tokens for bucket in buckets)
