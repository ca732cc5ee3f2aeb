"""Two runs at once on one store, with the same cells, with others, and one killed beside the other."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from faults.ground import Ground

pytestmark = pytest.mark.faults
KIND = "two runs at once"


@pytest.mark.parametrize("seeds", [("0,1,2,3,4", "0,1,2,3,4"), ("0,1,2", "2,3,4")])
@pytest.mark.parametrize("fresh", [False, True])
def test_both_end_well_and_leave_whole_results(
    ground: Callable[..., Ground], seeds: tuple[str, str], fresh: bool
) -> None:
    here = ground()
    runs = [here.start(*["--peft-fresh"] * fresh, seeds=some) for some in seeds]
    assert [run.end() for run in runs] == [0, 0], "\n".join(run.text for run in runs)
    here.count(KIND, here.finished())
    here.complete(KIND)


def test_one_killed_beside_the_other_harms_it_not(ground: Callable[..., Ground]) -> None:
    here = ground()
    run, other = here.start(), here.start("--peft-fresh")
    run.until(lambda: ": accuracy" in run.text)
    time.sleep(0.1)
    before = {
        name: content for name, content in here.finished().items() if name.endswith(".npz")
    }  # both write records, the same figures
    run.parent.kill()
    run.end()
    assert other.end() == 0, other.text
    here.count(KIND, before)
    here.complete(KIND)
