"""Several tests of a session may ask for the same method: its runs count once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import error_line
from peft_methods.analysis.baseline import read_baseline

TESTS = """
def test_quality(finetune):
    assert finetune().records[0].metrics["accuracy"] > 0

def test_memory(finetune):
    assert finetune().records[0].metrics["peak_memory_bytes"] > 0

def test_time(finetune):
    assert finetune().records[0].metrics["train_seconds"] > 0
"""


def test_three_tests_of_one_run_give_one_record_and_one_baseline_entry(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(TESTS)
    chosen = (
        "-p",
        "peft_methods.plugin",
        "-p",
        "no:cacheprovider",
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=head_only,bitfit",
        "--peft-seeds=1",
        "--peft-set=budget.epochs=1",
    )
    result = pytester.runpytest_inprocess(
        *chosen, "--peft-save-baseline=base.json", "--peft-csv=t.csv", "--benchmark-json=all.json"
    )
    result.assert_outcomes(passed=6)
    out = result.stdout.str()
    assert "± 0.0" not in out
    assert "p < 0.001" not in out
    assert "baseline written: base.json (2 methods)" in out
    assert len(Path("t.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert len(json.loads(Path("base.json").read_text(encoding="utf-8"))["benchmarks"]) == 2
    assert len(json.loads(Path("all.json").read_text(encoding="utf-8"))["benchmarks"]) == 6
    for name in ("base.json", "all.json"):
        assert {entry.seeds for entry in read_baseline(Path(name)).entries.values()} == {(0,)}
    for name in ("base.json", "all.json"):
        again = pytester.runpytest_inprocess(
            *chosen, f"--peft-baseline={name}", "--peft-allow-reused", "--peft-fail=accuracy:1pp"
        )
        assert again.ret == 0, again.stdout.str()


def test_baseline_with_two_unlike_entries_of_a_method_is_refused(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile("def test_it(finetune): finetune()")
    chosen = (
        "-p",
        "peft_methods.plugin",
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=head_only",
        "--peft-seeds=1",
        "--peft-set=budget.epochs=1",
    )
    assert pytester.runpytest_inprocess(*chosen, "--benchmark-json=b.json").ret == 0
    values = json.loads(Path("b.json").read_text(encoding="utf-8"))
    (entry,) = values["benchmarks"]
    other = {**entry, "extra_info": {**entry["extra_info"], "seeds": [7]}}
    text = json.dumps({**values, "benchmarks": [entry, other]})
    Path("b.json").write_text(text, encoding="utf-8")
    line = error_line(pytester.runpytest_inprocess(*chosen, "--peft-baseline=b.json"))
    assert "has two entries of tiny-head_only. Delete one." in line
