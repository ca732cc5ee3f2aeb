"""The Python way in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peft_methods import compare
from peft_methods.errors import DataError, OptionError


def test_an_unguarded_script_runs_once(tiny_recipe: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
print("started")
from peft_methods import compare
comparison = compare({str(tiny_recipe)!r}, methods=["lora", "ia3"], seeds=1, results={str(tmp_path / "r")!r})
print(comparison.table())
print(comparison.to_pandas()[["method", "seed", "status"]].to_csv(index=False))
""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.count("started") == 1
    assert "lora,0,ok\nia3,0,ok" in done.stdout
    assert "[2/2]" in done.stderr


def test_random_weights_from_python(tiny_recipe: Path, tmp_path: Path) -> None:
    exact = {"checkpoint": True, "deterministic": True}
    comparison = compare(
        str(tiny_recipe),
        methods=["head_only"],
        seeds=1,
        weights="random",
        results=tmp_path,
        progress=False,
        **exact,
    )
    (record,) = comparison.records
    assert (record.status, record.quality, record.metrics["accuracy"]) == ("ok", None, None)
    assert not record.data["random"]
    assert record.cell["deterministic"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert (
        "V501 note tiny-head_only: weights are random, so there is no quality to judge"
        in comparison.table()
    )


def test_mistakes_are_raised_as_they_would_be_said(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'lora'"):
        compare(str(tiny_recipe), methods=["loar"])
    with pytest.raises(OptionError, match=r"unknown weights 'foo'\. Allowed: pretrained, random"):
        compare(str(tiny_recipe), weights="foo")
    with pytest.raises(DataError, match="no known shape"):
        compare(
            str(tiny_recipe),
            methods=["lora"],
            model="no/such",
            weights="random",
            results=tmp_path,
            progress=False,
        )
    with pytest.raises(DataError, match="there is no folder /nowhere/x"):
        compare(
            str(tiny_recipe), methods=["lora"], data="/nowhere/x", results=tmp_path, progress=False
        )
    assert not list(tmp_path.glob("run-*"))
