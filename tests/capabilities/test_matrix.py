"""The stored matrix: what is written is read again, and damaged files are refused in one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_methods.capabilities.cells import CHECKS, Cell, Result
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.matrix import Matrix, MatrixError, key_of, shipped
from peft_methods.capabilities.slice import seed_of_source, slice_of
from peft_methods.methods.registry import METHODS
from peft_methods.tasks.registry import TASKS

CELL = Cell("lora", "bert", "text_classification")
GOOD = Result(tuple(CHECKS), key="k", seconds=1.5)
BAD = Result(("count",), {"trains": "the loss rose – by 2"}, {"merge": "cannot be"}, key="k")
OTHER = Cell("full", "llama", "causal_lm", "bf16", checkpointing=True)


def matrix(**results: Result) -> Matrix:
    return Matrix({"device": "cpu"}, {CELL: GOOD, OTHER: BAD})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cpu.json"
    matrix().write(path)
    assert Matrix.read(path) == matrix()
    assert [one.status for one in Matrix.read(path).results.values()] == ["failed", "passed"]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 10  # a line for each cell
    Matrix({}).write(path)
    assert Matrix.read(path) == Matrix({})


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        values = json.loads(text)
        change(values)
        return json.dumps(values)

    return apply


NAME = CELL.name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "damaged (JSONDecodeError"),
        (lambda text: "", "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: "\x00", "damaged"),
        (damaged(lambda all: all.update(schema=99)), "version 99 of the format"),
        (damaged(lambda all: all.pop("cells")), "damaged (KeyError: 'cells'"),
        (damaged(lambda all: all["cells"].update({"lora/bert": {}})), "damaged (ValueError"),
        (damaged(lambda all: all["cells"].update({NAME: {}})), "are not the checks of a cell"),
        (damaged(lambda all: all["cells"].update({NAME: None})), "damaged"),
        (damaged(lambda all: all["cells"][NAME].update(passed=["x"])), "['x'] are not the checks"),
        (damaged(lambda all: all["cells"][NAME].update(color="red")), "damaged (TypeError"),
    ],
)  # fmt: skip
def test_damaged_file_is_refused_with_what_to_do(
    damage: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "cpu.json"
    matrix().write(path)
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(MatrixError) as caught:
        Matrix.read(path)
    assert message in str(caught.value)
    assert "peft-methods capabilities run" in str(caught.value)


def test_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"does not exist.*`peft-methods capabilities run`"):
        Matrix.read(tmp_path / "cpu.json")


def test_cells_of_other_code_are_stale() -> None:
    known = dataclasses.replace(GOOD, key=key_of(CELL))
    gone = Cell("removed", "bert", "text_classification")
    assert Matrix({}, {CELL: known, OTHER: BAD, gone: known}).stale() == {OTHER, gone}
    assert key_of(CELL) == key_of(dataclasses.replace(CELL, family="llama"))
    assert key_of(CELL) != key_of(dataclasses.replace(CELL, method="ia3"))


def test_shipped_matrix_has_every_method_on_every_family() -> None:
    first, *_ = shipped()
    assert first.stem == "cpu"
    stored = Matrix.read(first)
    tried = {(cell.method, cell.family) for cell in stored.results}
    methods = {cell.method for cell in stored.results}
    assert tried == {(method, family) for method in methods for family in FAMILIES}
    assert {cell.task for cell in stored.results} <= set(TASKS)


def test_slice_follows_its_seed_and_has_different_methods() -> None:
    results = {
        Cell(method, family, "text_classification"): GOOD
        for method in ("lora", "full")
        for family in FAMILIES
    }
    methods = [*METHODS]
    drawn = [slice_of(results, methods, 6, str(seed)) for seed in range(20)]
    assert drawn == [slice_of(results, methods, 6, str(seed)) for seed in range(20)]
    assert len({tuple(cells) for cells in drawn}) > 10
    assert all(len({cell.method for cell in cells}) == 6 for cells in drawn)
    new = {cell.method for cells in drawn for cell in cells} - {"lora", "full"}
    assert new, "methods that are not stored are measured too"
    refused = {cell: Result(reason="no") for cell in results}
    assert slice_of(refused, ["lora", "full"], 6, "") == []
    assert len(slice_of(results, ["lora"], 6, "")) == 6
    failed = dict.fromkeys(results, BAD)
    assert slice_of(failed, methods, 6, "") == slice_of(results, methods, 6, "")
    assert seed_of_source() == seed_of_source()
