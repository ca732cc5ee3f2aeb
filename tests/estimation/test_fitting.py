"""The search for the largest batch that fits: right wherever the limit is, with few estimates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.estimation.fitting import TRIES, largest_that_fits

SHAPES: dict[str, Callable[[int], float]] = {
    "linear": lambda n: 3e9 + 2.5e8 * n,
    "rounded": lambda n: 3e9 + 2**21 * -(-n * 37 // 10),
    "quadratic": lambda n: 3e9 + 1e7 * n + 3e6 * n * n,
    "constant": lambda n: 3e9,
    "saturating": lambda n: 3e9 + 1e9 * n**0.5,
}


@pytest.mark.parametrize("shape", SHAPES)
@given(limit=st.floats(1e9, 1e12), start=st.integers(1, 512))
def test_largest_is_the_largest(shape: str, limit: float, start: int) -> None:
    asked: list[int] = []

    def needed(size: int) -> float:
        asked.append(size)
        return SHAPES[shape](size)

    found = largest_that_fits(needed, limit, start, 4096)
    assert len(asked) <= TRIES
    assert len(set(asked)) == len(asked)
    assert found == 0 or (found in asked and SHAPES[shape](found) <= limit)
    if len(asked) < TRIES:
        assert found == 4096 or SHAPES[shape](found + 1) > limit


@given(limit=st.floats(3.3e9, 5e11), start=st.integers(1, 256))
def test_line_takes_few_estimates(limit: float, start: int) -> None:
    asked: list[int] = []

    def needed(size: int) -> float:
        asked.append(size)
        return 3e9 + 2.5e8 * size

    largest_that_fits(needed, limit, start, 4096)
    assert len(asked) <= 5


def test_steps_are_kept_and_nothing_may_fit() -> None:
    assert largest_that_fits(lambda n: 1e6 * n, 1e8, 512, 512, step=8) == 96
    assert largest_that_fits(lambda n: 1e6 * n, 1e9, 300, 512, step=8) == 512
    assert largest_that_fits(lambda n: 1e9, 1e8, 16, 4096) == 0
