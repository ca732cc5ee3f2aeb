"""The pairwise covering design: every pair that an allowed row can have occurs, in few rows."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from peft_methods.capabilities.covering import covering, pairs_of

FACTORS = (("a", "b", "c"), ("k", "l", "m", "n"), ("s", "t"), ("y", "n"))
ROWS = list(itertools.product(*FACTORS))


@given(st.sets(st.sampled_from(ROWS)), st.lists(st.sampled_from(ROWS), max_size=5))
def test_every_pair_of_an_allowed_row_is_covered(
    forbidden: set[tuple[str, ...]], there: list[tuple[str, ...]]
) -> None:
    rows = covering(FACTORS, lambda row: row not in forbidden, there)
    assert not forbidden & set(rows)
    wanted = {pair for row in ROWS if row not in forbidden for pair in pairs_of(row)}
    assert wanted <= {pair for row in (*rows, *there) for pair in pairs_of(row)}
    assert rows == covering(FACTORS, lambda row: row not in forbidden, there)


def test_few_rows_are_needed() -> None:
    assert 12 <= len(covering(FACTORS, lambda row: True)) <= 16  # three by four are the least
