"""The Python API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builders import make_model, make_rows, write_csv
from peft_methods.api import compare, how_to_change
from peft_methods.runs.experiment import Experiment
from peft_methods.runs.store import StoreError
from peft_methods.utils.errors import DataError, OptionError, PreparationTimedOut


@pytest.mark.slow
def test_compare_works_in_a_script_without_main_guard(tiny_recipe: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
print("started")
from peft_methods import compare
comparison = compare(
    {str(tiny_recipe)!r}, methods=["lora", "ia3"], seeds=1, results={str(tmp_path / "r")!r}
)
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


def test_compare_measures_cost_with_random_weights(tiny_recipe: Path, tmp_path: Path) -> None:
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
    assert record.spec.deterministic
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert "V501 note tiny-head_only: weights are random" in comparison.table()


def test_compare_takes_ones_own_file_at_the_first_try(tiny_recipe: Path, tmp_path: Path) -> None:
    rows = [{"Text": row["text"], "Label": bool(row["label"])} for row in make_rows(80)]
    path = write_csv(tmp_path, mine=rows) / "mine.csv"
    comparison = compare(
        str(tiny_recipe),
        methods=["head_only"],
        seeds=1,
        model=str(make_model(tmp_path / "mpnet", "mpnet")),
        data=str(path),
        results=tmp_path / "results",
        progress=False,
    )
    assert [record.status for record in comparison.records] == ["ok"]
    table = " ".join(comparison.table().split())
    assert "48 train / 16 validation / 16 test" in table
    assert "the source has 80 train rows; without a validation and a test split" in table
    assert "Tune them with tune=…" in table


def test_compare_raises_errors_for_user_mistakes(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'lora'"):
        compare(str(tiny_recipe), methods=["loar"])
    with pytest.raises(OptionError, match=r"unknown weights 'foo'\. Allowed: pretrained, random"):
        compare(str(tiny_recipe), weights="foo")
    with pytest.raises(DataError, match="nor an architecture preset"):
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


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("", ""),
        ("workers", "workers=…"),
        ("fresh", "fresh=True"),
        ("trust_remote_code", "trust_remote_code=True"),
        ("budget.seeds", "seeds=…"),
        ("model.source", "model=…"),
        ("data.source", "data=…"),
        ("budget.precision", 'settings=["budget.precision=…"]'),
        ("gpu", 'settings=["gpu=…"]'),
    ],
)
def test_how_to_change_names_the_argument_of_compare(setting: str, change: str) -> None:
    assert how_to_change(setting) == change


@pytest.mark.parametrize(
    "error",
    [
        OptionError("bad value.", setting="budget.precision"),
        DataError("bad value.", setting="budget.precision"),
    ],
)
def test_compare_adds_how_to_change_the_setting_to_an_error(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OptionError
) -> None:
    def fail(experiment: Experiment) -> None:
        raise error

    monkeypatch.setattr(Experiment, "start", fail)
    with pytest.raises(type(error)) as caught:
        compare(str(tiny_recipe), results=tmp_path, progress=False)
    assert type(caught.value) is type(error)
    assert caught.value.setting == "budget.precision"
    assert str(caught.value) == 'bad value. Change it with settings=["budget.precision=…"].'


def test_compare_names_the_results_argument_for_an_unwritable_folder(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written .* Change it with results=…\."):
        compare(str(tiny_recipe), results=tmp_path / "file" / "x", progress=False)


def test_compare_keeps_the_stack_of_an_error_that_took_too_long(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(experiment: Experiment) -> None:
        raise PreparationTimedOut("too slow.", "stack")

    monkeypatch.setattr(Experiment, "start", fail)
    with pytest.raises(PreparationTimedOut, match=r"^too slow\.$") as caught:
        compare(str(tiny_recipe), results=tmp_path, progress=False)
    assert caught.value.stack == "stack"
