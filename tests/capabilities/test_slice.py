"""A few cells of the matrix, others with every commit, are measured anew; and all known faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.capabilities.cells import Cell, Result
from peft_methods.capabilities.checks import measure
from peft_methods.capabilities.matrix import Matrix, shipped
from peft_methods.capabilities.processes import Job, Process, serve_reloading
from peft_methods.capabilities.slice import seed_of_source, slice_of
from peft_methods.capabilities.toy import Ground
from peft_methods.capabilities.upstream import Fault, faults, mended, shown_status
from peft_methods.methods.registry import METHODS

CELLS = 6
pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries, in all methods there are


def measured(cells: list[Cell], root: Path) -> dict[Cell, Result]:
    """Measure cells here, and load all saved models in one other process."""
    ground = Ground.made(root, {cell.family for cell in cells}, {cell.task for cell in cells})
    job = Job(root, "cpu")
    (root / "logs").mkdir()
    results = {cell: measure(cell, ground, root / "work", job.saved(cell)) for cell in cells}
    waiting = [cell for cell, result in results.items() if result.waits_for_reload]
    loading = Process(serve_reloading, job, "reload")
    try:
        for cell in waiting:
            loading.give(cell)
            _, problem = loading.take()
            results[cell] = results[cell].with_reload(problem)
    finally:
        loading.end()
    return results


def test_slice_of_this_commit_passes(tmp_path: Path) -> None:
    stored = Matrix.read(shipped()[0]).results
    cells = slice_of(stored, tuple(METHODS), CELLS, seed_of_source())
    found = measured(cells, tmp_path)
    assert len(found) == CELLS
    wrong = {c.name: r.failed for c, r in found.items() if shown_status(c, r) == "failed"}
    assert wrong == {}


@pytest.mark.parametrize("fault", [pytest.param(one, id=str(one)[:60]) for one in faults()])
def test_upstream_has_not_mended(fault: Fault, tmp_path: Path) -> None:
    """If this fails, a library works again: remove the entry from capabilities/upstream.toml."""
    stored = Matrix.read(shipped()[0]).results
    concerned = [cell for cell in stored if fault.concerns(cell, fault.check)]
    assert concerned, f"no combination of the matrix has this fault: {fault}"
    assert mended(measured(concerned[:1], tmp_path), [fault]) == []


def test_known_fault_is_shown_as_upstream_until_it_is_mended() -> None:
    cell, other = (Cell("lora", name, "text_classification") for name in ("bert", "gpt2"))
    fault = Fault("lora", "bert", "merge", "peft", "0.21.0", "wrong shape")
    fails, both = (
        Result(("count",), dict.fromkeys(names, "no")) for names in (["merge"], ["merge", "start"])
    )
    works = Result(("count", "merge"))
    assert shown_status(cell, fails, [fault]) == "upstream"
    assert shown_status(cell, both, [fault]) == "failed"
    assert shown_status(other, fails, [fault]) == "failed"
    assert shown_status(cell, fails, [Fault("lora", "*", "merge", "p", "1", "s")]) == "upstream"
    assert shown_status(cell, works, [fault]) == "passed"
    assert mended({cell: fails}, [fault]) == []
    assert mended({cell: works}, [fault]) == [fault]
    assert mended({other: works}, [fault]) == [], "it was not measured"
    assert mended({cell: Result(reason="refused")}, [fault]) == []
    assert str(fault) == "lora on bert, merge: wrong shape (peft 0.21.0)"
