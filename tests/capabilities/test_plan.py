"""The plan: every method on every family, and every supported pair of values."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations

import pytest

from peft_methods.capabilities.cells import PRECISIONS, Cell
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.plan import Fits, plan
from peft_methods.capabilities.toy import Ground
from peft_methods.methods.registry import METHODS
from peft_methods.tasks.registry import TASKS

FEW = ("bert", "llama", "t5")
NAMES = ("full", "head_only", "bitfit", "lora", "qlora")


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Fits:
    ground = Ground.made(tmp_path_factory.mktemp("ground"), FEW, TASKS)
    return Fits.loaded(ground, "cpu", FEW, tuple(TASKS))


def test_every_supported_pair_is_planned(fits: Fits) -> None:
    planned = plan(NAMES, FEW, tuple(TASKS), fits)
    main = {Cell(method, family, FAMILIES[family].main_task) for method in NAMES for family in FEW}
    assert main <= planned.keys()
    tested = [asdict(cell).items() for cell, result in planned.items() if result is None]
    found = {pair for values in tested for pair in combinations(values, 2)}
    possible = {
        pair
        for method in NAMES
        for family in FEW
        for task in TASKS
        if fits.reason(Cell(method, family, task)) is None
        for precision in PRECISIONS
        for checkpointing in (False, True)
        for pair in combinations(
            asdict(Cell(method, family, task, precision, checkpointing)).items(), 2
        )
    }
    assert possible == found
    assert len(planned) < 3 * len(main)


def test_unsupported_combinations_have_the_methods_word(fits: Fits) -> None:
    planned = plan(NAMES, FEW, tuple(TASKS), fits)
    refused = planned[Cell("bitfit", "t5", "text_classification")]
    assert refused is not None
    assert refused.reason == "BitFit trains biases, and 't5' has none"
    misfit = fits.reason(Cell("lora", "bert", "causal_lm"))
    assert misfit is not None
    assert "'bert'" in misfit
    assert str(fits.ground.root) not in misfit


def test_selected_task_that_no_family_has_as_its_main_one_is_covered(fits: Fits) -> None:
    planned = plan(("lora",), ("bert",), ("regression",), fits)
    assert {cell.task for cell in planned} == {"regression"}
    assert {cell.precision for cell in planned} == set(PRECISIONS)


def test_method_that_cannot_be_asked_is_measured(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["lora"], "unsupported", lambda *_: 1 / 0)
    assert fits.reason(Cell("lora", "bert", "text_classification")) is None
