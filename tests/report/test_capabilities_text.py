"""The capability matrix as tables: what is not measured is no pass, and one failure shows."""

from __future__ import annotations

import pytest

from peft_methods.capabilities.cells import CHECKS, Cell, Result
from peft_methods.capabilities.matrix import Matrix
from peft_methods.capabilities.selection import Selection
from peft_methods.report.text.capabilities import View, capability_text

PASSED, FAILED = Result(tuple(CHECKS)), Result(("count",), {"trains": "the loss rose"})
REFUSED = Result(reason="it has none")
ENGINE = Result((), {}, {"engines": "falls back to trainer: no capture"})
SELECTION = Selection(("lora", "full"), ("bert", "gpt2", "t5"))


def cell(family: str = "bert", method: str = "lora", task: str = "regression") -> Cell:
    return Cell(method, family, task)


@pytest.mark.parametrize(
    ("results", "sign"),
    [
        ([PASSED, PASSED], "✓"),
        ([PASSED, FAILED], "FAIL"),
        ([PASSED, REFUSED], "✓"),
        ([REFUSED, REFUSED], "no"),
        ([REFUSED, FAILED], "FAIL"),
        ([], "–"),
    ],
)
def test_sign_of_several_combinations(results: list[Result], sign: str) -> None:
    tasks = ("regression", "multilabel")
    found = {cell(task=task): one for task, one in zip(tasks, results, strict=False)}
    headings, rows = View(Matrix({}, found), SELECTION).families(["bert", "gpt2"])
    assert headings == ["method", "BERT", "GPT-2"]
    assert rows == [["full", "–", "–"], ["lora", sign, "–"]]


def test_engines_of_a_gpu_are_a_column_with_their_reasons() -> None:
    on_gpu = Matrix({}, {cell(): Result(("engines",)), cell("t5", "full"): ENGINE})
    view = View(Matrix({}, {cell(): PASSED}), SELECTION, on_gpu)
    headings, rows = view.settings()
    assert headings[-1] == "engines agree (GPU)"
    assert [row[-1] for row in rows] == ["no", "✓"]
    assert view.reasons() == ["full on t5: falls back to trainer: no capture"]
    assert view.failures() == []


def test_text_fits_its_width_and_names_failures() -> None:
    found = {cell(): PASSED, cell("gpt2"): FAILED, cell("t5"): REFUSED, cell("t5", "full"): REFUSED}
    view = View(Matrix({}, found), SELECTION)
    text = capability_text(view, 30, "advice", detailed=True)
    assert all(len(line) <= 30 for line in text.partition("weights")[0].splitlines()[:-1])
    assert f"lora/gpt2/regression/fp32/plain: {CHECKS['trains']}" in text
    assert "lora on t5; full on t5: it has none" in text
    assert "2 combinations tested: 1 pass, 1 fail, 0 are broken upstream; 2 more are not" in text
    assert text.endswith("advice")
