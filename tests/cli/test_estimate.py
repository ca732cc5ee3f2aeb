"""`peft-methods estimate`: what it prints and writes, and one line for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from estimate_builders import FormulaEstimator, refusing

from builders import runs
from peft_methods.__main__ import main
from peft_methods.estimation.connected import ProgramEstimator
from peft_methods.estimation.question import _nearest_preset
from peft_methods.estimation.rows import has_known_lengths
from peft_methods.runs.record import record_without_result
from peft_methods.runs.store import Store
from peft_methods.utils import cache

BASE = ["estimate", "roberta-base", "--method", "full,lora,qlora"]


@pytest.fixture(autouse=True)
def formulas(monkeypatch: pytest.MonkeyPatch) -> FormulaEstimator:
    """Estimates by formulas, on a terminal of 80 columns."""
    estimator = FormulaEstimator()
    monkeypatch.setattr("peft_methods.estimation.api.default_estimator", lambda: estimator)
    monkeypatch.setenv("COLUMNS", "80")
    return estimator


@pytest.mark.parametrize("columns", [80, 120])
def test_table_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*BASE, "--gpu", "8GB"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "roberta-base by recipe imdb_roberta, 16 rows of at most 512 tokens" in out
    assert "What would make it fit" in out
    words = " ".join(out.split())
    assert "- LoRA: budget.batch_size = 8 with budget.gradient_accumulation = 2 (5." in words
    assert "QLoRA's peak is 1.7 GB above LoRA's" in words
    assert "note: recipe imdb_roberta, the usual one" in words
    assert "Epoch" not in out  # times need a device


def test_device_gives_times_and_options_change_the_recipe(
    capsys: pytest.CaptureFixture[str], formulas: FormulaEstimator
) -> None:
    arguments = ["--gpu=T4", "--batch=4", "--length=128", "--precision=fp32", "--checkpointing"]
    assert main([*BASE, *arguments]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 rows of at most 128 tokens, fp32" in out
    assert "gradient checkpointing, GPU: T4, 16.0 GB" in out
    assert "Epoch" in out
    assert "from the datasheet" in out
    assert formulas.asked[0] == ("full", 4, 128)


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "estimate.json"
    assert main([*BASE, "--gpu", "8GB", "--json", str(path)]) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [one["method"] for one in written["methods"]] == ["full", "lora", "qlora"]
    assert {"trainable", "memory", "time", "fit", "checkpoint_bytes"} <= set(written["methods"][0])


def test_methods_that_cannot_be_are_rows(
    capsys: pytest.CaptureFixture[str], formulas: FormulaEstimator
) -> None:
    formulas.failing["lora"] = refusing("no such layers")
    assert main(BASE) == 0
    out = capsys.readouterr().out
    assert "LoRA: no estimate: no such layers" in out
    formulas.failing |= {"full": refusing("too"), "qlora": refusing("too")}
    assert main(BASE) == 1
    assert "QLoRA: no estimate: too" in capsys.readouterr().out


def test_validation_compares_with_records(
    tmp_path: Path,
    tiny_recipe: Path,
    formulas: FormulaEstimator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("peft_methods.estimation.connected.default_estimator", lambda: formulas)
    store = Store(tmp_path / "results")
    store.prepare()
    for method in ("lora", "full"):
        for run in runs(tiny_recipe, method):
            on_gpu = replace(run, device="cuda")
            recipe, rows = run.recipe, run.recipe.budget.batch_size
            known = formulas.memory(
                recipe, run.method, engine="", batch_size=rows, length=recipe.data.max_length
            )
            peak = 1.05 * known.memory.peak
            record = replace(
                record_without_result(on_gpu, "failed", ""),
                status="ok",
                metrics={"peak_memory_bytes": peak, "train_seconds": 9.0},
                environment={"device_name": "T4"},
            )
            store.write(record)
    assert main(["estimate", "--validate", str(store.folder)]) == 0
    out = capsys.readouterr().out
    assert ("training time" in out) == has_known_lengths(recipe)
    assert "finished runs on GPUs" in out
    assert "Errors of the peak" in out
    assert out.count("4.8%") == 3 * 4  # median, 95 % and worst, of all, two methods and the model
    assert {"all", "LoRA", "Full"} <= {line.split()[0] for line in out.splitlines() if line.split()}
    assert main(["estimate", "--validate", str(tmp_path)]) == 1
    assert main(["estimate", "--validate", "nowhere"]) == 4
    assert main(["estimate"]) == 4
    assert "name a MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--gpu", "T5"], "Did you mean 'T4'?", 4),
        (["--gpu", "T5"], "Change it with --gpu.", 4),
        (["--batch", "-3"], "Change it with --batch.", 4),
        (["--batch", "65536"], "should be a whole number from 1 to 4,096", 4),
        (["--set", "budget.batch_size=65536"], "should be a whole number from 1 to 4,096", 4),
        (["--gpu", "cpu", "--engine", "cuda_graphs"], "Allowed here: auto, trainer", 4),
        (["--batch", "many"], "--batch 'many' should be a whole number", 4),
        (["--length", "600"], "reads at most 512 tokens", 2),
        (["--length", "600"], "Change it with --length.", 2),
        (["--recipe", "imdb"], "unknown recipe 'imdb'", 4),
        (["--method", "lroa"], "Did you mean", 4),
        (["--set", "budget.epoch=2"], "unknown key 'budget.epoch'. Did you mean 'epochs'?", 4),
        (["--json", "gone/estimate.json"], "the folder gone does not exist", 4),
        (["--bacth", "3"], "Did you mean '--batch'?", 4),
    ],
)
def test_mistake_is_one_line(
    arguments: list[str], message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main([*BASE, *arguments]) == code
    except SystemExit as ended:
        assert ended.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_imports_no_training_library() -> None:
    code = (
        "import sys; from peft_methods.__main__ import main\n"
        "try: main(['estimate', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    """Each further try of the hub's library would be a line of its own, and take seconds."""
    code = "import sys; from peft_methods.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "estimate", "t5-small"],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "the config of 't5-small' cannot be fetched from the hub" in line
    assert "Did you mean" not in line  # no preset is a T5


@pytest.mark.parametrize(
    ("name", "near"),
    [("robert-base", "roberta-base"), ("org/bert-bas-uncased", "bert-base-uncased")],
)
def test_nearest_preset_is_of_the_same_family(name: str, near: str) -> None:
    assert f"{near!r}" in _nearest_preset(name)
    assert _nearest_preset("t5-small") == _nearest_preset("gpt2") == ""


def test_probe_measures_and_estimates_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache._problem.cache_clear()
    monkeypatch.setattr("peft_methods.estimation.api.default_estimator", ProgramEstimator)
    file = tmp_path / "probe.json"
    assert main(["estimate", "--probe", "--gpu", "cpu", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "kept in the cache for estimates" in out
    assert json.loads(file.read_text())["rates"]["basis"] == "probe"
    of_embedded = ["bundled:minilm", "--recipe", "embedded", "--method", "head_only"]
    assert main(["estimate", *of_embedded, "--gpu", "cpu"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "threads" in out
    assert "from the rates that were probed on this device" in out
    assert "Fits" not in out
    assert "engine trainer" in out
    assert "±150%" in out  # others may use the processor: see PROCESSOR_WIDTH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["roberta-base"], "--probe has no MODEL"), (["--gpu", "T4"], "not 'T4'. Leave out --gpu")],
)
def test_probe_is_of_this_machine(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "--probe", *arguments]) == 4
    assert message in capsys.readouterr().err
