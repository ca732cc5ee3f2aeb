"""A learning curve as real runs: ordinary records, reused in the next session, and a dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.__main__ import main
from peft_methods.api import compare
from peft_methods.utils.errors import DataError

QUICK = ("budget.epochs=1", "data.validation=20", "data.test=30")


@pytest.mark.slow
def test_a_curve_is_trained_kept_and_reused(tiny_recipe: Path, tmp_path: Path) -> None:
    quick = {"settings": QUICK, "results": tmp_path, "progress": False, "methods": ["head_only"]}
    first = compare(str(tiny_recipe), seeds=1, curve=[20, 40], **quick)
    assert [record.status for record in first.records] == ["ok", "ok"]
    assert [sum(record.data["class_counts"]["train"]) for record in first.records] == [20, 40]
    assert len({record.data["fingerprint"] for record in first.records}) == 1
    assert len({record.fingerprint for record in first.records}) == 2
    again = compare(str(tiny_recipe), seeds=1, curve=[20, 40], **quick)
    assert [record.reused for record in again.records] == [True, True]
    assert [record.recipe_name for record in again.records] == ["tiny-20", "tiny-40"]


def test_too_large_a_size_is_refused_before_training(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"5000 training rows .* Request up to \d+\. Change .*curve"
    ):
        compare(
            str(tiny_recipe),
            methods=["head_only"],
            seeds=1,
            curve="5000",
            results=tmp_path,
            progress=False,
        )


@pytest.mark.usefixtures("pytester")
def test_dry_run_lists_every_size(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["run", f"--recipe={tiny_recipe}", "--method=head_only", "--seeds=1"]
    assert main([*chosen, "--curve=20,40", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "tiny-20-head_only  0" in shown
    assert "tiny-40-head_only  0" in shown
    assert main([*chosen, "--curve=40,20", "--dry-run"]) == 4
    message = "curve '40,20' should be in ascending order: 20,40. Change it with --curve."
    assert message in capsys.readouterr().err
