"""Ready runs come in the order of their numbers, whichever of them are named."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders import make_record
from peft_methods.runs.executors.jobs import job_name
from peft_methods.runs.run_queue import ReadyRuns

TEMPLATE = make_record().spec
RUNS = [replace(TEMPLATE, seed=seed) for seed in range(12)]
numbers = st.integers(0, len(RUNS) - 1)


@given(
    st.lists(numbers, unique=True, min_size=1),
    st.lists(st.tuples(st.sets(numbers), st.sets(numbers))),
)
def test_named_runs_come_first_or_last_and_the_others_in_order(
    added: list[int], turns: list[tuple[set[int], set[int]]]
) -> None:
    ready = ReadyRuns()
    for number in added:
        ready.add(number, RUNS[number])
    left = set(added)
    for first, last in turns:
        if not left:
            break
        names_first, names_last = ({job_name(RUNS[n]) for n in one} for one in (first, last))
        assert list(ready.numbers(without=names_last)) == sorted(left - last)
        expected = min(left & first or left - last or left)
        assert ready.take(names_first, names_last) == RUNS[expected]
        left.remove(expected)
        assert len(ready) == len(left)
        assert set(ready.names) == {job_name(RUNS[number]) for number in left}
