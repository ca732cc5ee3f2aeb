"""Several tests of a session may ask for the same method: its runs count once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import records_of
from peft_methods.analysis.baseline import read_baseline
from peft_methods.utils.errors import OptionError

TESTS = """
def test_quality(finetune):
    assert finetune().records[0].metrics["accuracy"] > 0

def test_memory(finetune):
    assert finetune().records[0].metrics["peak_memory_bytes"] > 0

def test_time(finetune):
    assert finetune().records[0].metrics["train_seconds"] > 0
"""


def entries(path: Path) -> list[Any]:
    """The benchmarks in a JSON of pytest-benchmark."""
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return found


def test_three_tests_of_one_run_give_one_record_and_one_baseline_entry(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(TESTS)
    chosen = (f"--peft-recipe={tiny_recipe}", "--peft-method=head_only,bitfit", "--peft-seeds=1")
    small = ("--peft-set=budget.epochs=1", "--peft-set=data.train=40", "--peft-csv=t.csv")
    kept = ("--peft-save-baseline=base.json", "--benchmark-storage=all", "--benchmark-save=all")
    plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*plain, *chosen, *small, *kept)
    result.assert_outcomes(passed=6)
    out = result.stdout.str()
    assert "± 0.0" not in out
    assert "p < 0.001" not in out
    assert "baseline written: base.json (2 methods)" in out
    assert len(Path("t.csv").read_text(encoding="utf-8").splitlines()) == 3
    (every,) = Path("all").rglob("*.json")
    assert len(entries(every)) == 6
    assert len(entries(Path("base.json"))) == 2
    for path in (every, Path("base.json")):
        assert {entry.seeds for entry in read_baseline(path).entries.values()} == {(0,)}


def test_baseline_with_two_unlike_entries_of_a_method_is_refused(
    tell: Callable[..., pytest.RunResult],
) -> None:
    assert tell(records_of("lora"), "--peft-save-baseline=b.json").ret == 0
    path = Path("b.json")
    (entry,) = entries(path)
    path.write_text(json.dumps({"benchmarks": [entry, entry]}), encoding="utf-8")
    assert len(read_baseline(path).entries) == 1
    other = {**entry, "extra_info": {**entry["extra_info"], "seeds": [7]}}
    path.write_text(json.dumps({"benchmarks": [entry, other]}), encoding="utf-8")
    with pytest.raises(OptionError, match=r"has two entries of embedded-lora\. Delete one\."):
        read_baseline(path)
