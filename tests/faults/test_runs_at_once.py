"""Two concurrent sessions on one store: with the same runs, with others, and with one killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from faults.ground import Ground

pytestmark = pytest.mark.faults
KIND = "two runs at once"


@pytest.mark.parametrize("seeds", [("0,1,2,3,4", "0,1,2,3,4"), ("0,1,2", "2,3,4")])
@pytest.mark.parametrize("fresh", [False, True])
def test_concurrent_sessions_both_succeed_with_complete_results(
    ground: Callable[..., Ground], seeds: tuple[str, str], fresh: bool
) -> None:
    here = ground()
    runs = [here.start(*["--peft-fresh"] * fresh, seeds=some) for some in seeds]
    assert [run.end() for run in runs] == [0, 0], "\n".join(run.text for run in runs)
    here.count(KIND, here.finished())
    here.complete(KIND)


def test_killed_session_does_not_harm_a_concurrent_one(ground: Callable[..., Ground]) -> None:
    here = ground()
    run, other = here.start(), here.start("--peft-fresh")
    run.until(lambda: ": accuracy" in run.text)
    time.sleep(0.1)
    # Both write the same predictions; their records differ in times.
    before = {name: content for name, content in here.finished().items() if name.endswith(".npz")}
    run.parent.kill()
    run.end()
    assert other.end() == 0, other.text
    here.count(KIND, before)
    here.complete(KIND)
