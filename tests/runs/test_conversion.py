"""A saved adapter is converted to LoRA, measured on its test rows, and saved as LoRA is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builders import make_any, runs, small_runs, write_example
from peft_methods.__main__ import main
from peft_methods.runs import pipeline
from peft_methods.runs.conversion import convert
from peft_methods.runs.description import describe, read_description, run_of
from peft_methods.runs.export import load_base, load_trained
from peft_methods.runs.record import Record
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import DataError, ModelError, OptionError

pytest.importorskip("peft.tuners.lora.conversion")  # not in the oldest version


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def train(recipe: Path, root: Path, name: str, kind: str = "roberta") -> tuple[Path, float]:
    """Train and save a model. Return its folder and its test accuracy."""
    source = make_any(root / kind, kind, vivid=True)
    (run,) = small_runs(recipe, name, f"model.source={source}", "budget.epochs=2")
    folder, record = saved(run, root)
    accuracy = record.metrics["accuracy"]
    assert accuracy is not None
    return folder, accuracy


def saved(run: RunSpec, root: Path) -> tuple[Path, Record]:
    """Train a model and save it. Return its folder and its record."""
    paths = RunPaths(root / f"work-{run.method.name}", save_to=root / run.method.name)
    paths.work.mkdir()
    record, _ = pipeline.execute(run, paths, lambda news: None, threads=1)
    assert record.status == "ok", record.message
    return root / run.method.name, record


@pytest.fixture(scope="module")
def vera(tiny_recipe: Path, models: Path) -> tuple[Path, float]:
    """An adapter of VeRA on a model whose head has several layers."""
    return train(tiny_recipe, models, "vera")


@pytest.fixture(scope="module")
def bitfit(tiny_recipe: Path, models: Path) -> Path:
    return train(tiny_recipe, models, "bitfit", "bert")[0]


def test_description_has_the_run_and_rebuilds_it(
    vera: tuple[Path, float], tiny_recipe: Path
) -> None:
    folder, _ = vera
    run = run_of(read_description(folder), folder)
    source = f"model.source={run.recipe.model.source}"
    (expected,) = small_runs(tiny_recipe, "vera", source, "budget.epochs=2")
    assert run == replace(expected.recorded(), prerequisites=())


def test_description_has_no_password_of_the_data(vera: tuple[Path, float]) -> None:
    folder, _ = vera
    saved = read_description(folder)
    run = run_of(saved, folder)
    base = load_base(saved, run.recipe.model, run.method, folder, device="cpu")
    secret = replace(run.recipe.data, source="https://me:pass-word@example.org/data.csv")
    private = replace(run, recipe=replace(run.recipe, data=secret))
    assert "pass-word" not in json.dumps(describe(private, base))


def test_original_scores_as_recorded_and_full_rank_as_the_original(
    vera: tuple[Path, float],
) -> None:
    folder, accuracy = vera
    found = convert(folder, [1, 32])
    assert found.original.scores["accuracy"] == accuracy
    low, full = found.converted
    assert (low.rank, full.rank) == (1, 32)
    assert full.scores == pytest.approx(found.original.scores)
    assert low.error is not None
    assert full.error is not None
    assert full.error < 1e-4
    assert 0.1 < low.error <= 1
    assert (low.parameters, full.parameters) == (4 * 64, 4 * 64 * 32)
    assert low.folder is None


def test_saved_conversion_is_lora_and_loads_with_peft_alone(
    vera: tuple[Path, float], tmp_path: Path
) -> None:
    folder, _ = vera
    found = convert(folder, [4, 8], output=tmp_path / "out")
    assert [one.folder for one in found.converted] == [
        tmp_path / "out" / "rank-4",
        tmp_path / "out" / "rank-8",
    ]
    saved = tmp_path / "out" / "rank-8"
    config = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["task_type"]) == ("LORA", 8, "SEQ_CLS")
    assert read_description(saved)["method"] == "lora"
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: peft")
    assert "- Adapter: converted from VeRA\n" in card
    assert not load_trained(saved, merge=True).training
    again = convert(saved, [8])  # LoRA of rank 8 loses nothing at rank 8
    assert again.original.scores == pytest.approx(found.converted[1].scores)
    assert again.converted[0].error == pytest.approx(0, abs=1e-4)


def test_command_prints_a_table_and_saves_into_the_folder(
    vera: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, accuracy = vera
    assert main(["convert", str(folder), "--rank", "32", "-o", str(tmp_path / "lora")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("VeRA, as trained by the recipe tiny; 20 test rows of ")
    lines = printed.splitlines()
    (row,) = [line for line in lines if line.startswith("LoRA, rank 32")]
    assert row.split()[3] == "8,192"
    assert f"{100 * accuracy:.1f} %" in row
    assert row.endswith("+0.0 points")
    assert lines[-1] == f"saved: {tmp_path / 'lora'}"
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()


def test_mistakes_are_one_line(
    vera: tuple[Path, float], bitfit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = vera
    for arguments, code, message in [
        ((tmp_path, "--rank=4"), 2, f"{tmp_path} holds no model saved by peft_methods"),
        ((bitfit, "--rank=4"), 2, "BitFit cannot be converted to LoRA: PEFT converts additive"),
        ((folder, "--rank=33"), 4, "rank = 33 is above the smallest matrix that VeRA changes here"),
        ((folder, "--rank=0"), 4, "rank '0' should be a whole number of 1 or more"),
        ((folder, "--rank=4", "--to=lroa"), 4, "unknown method for --to 'lroa'. Did you mean"),
        ((folder, "--rank=four"), 4, "rank 'four' should be a whole number of 1 or more"),
        ((folder, "--rank=4", f"--data={tmp_path}/no"), 2, "no"),
        ((folder, "--rank=4", f"--base={tmp_path}/no"), 2, "its base model cannot be loaded"),
    ]:
        assert main(["convert", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err.strip().splitlines()[-1]


def test_data_that_have_moved_can_be_named_and_others_are_refused(
    vera: tuple[Path, float], tmp_path: Path
) -> None:
    folder, accuracy = vera
    source = Path(run_of(read_description(folder), folder).recipe.data.source).expanduser()
    moved = shutil.copytree(source, tmp_path / "moved")
    found = convert(folder, [4], data=str(moved))
    assert found.original.scores["accuracy"] == accuracy
    for name in ("train", "test"):
        file = moved / f"{name}.jsonl"
        text = file.read_text(encoding="utf-8").replace('"label": 0', '"label": 2')
        file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"has the labels 1, 2, and the model in .* 0, 1"):
        convert(folder, [4], data=str(moved))


def test_a_folder_of_an_earlier_version_is_refused(
    vera: tuple[Path, float], tmp_path: Path
) -> None:
    copied = shutil.copytree(vera[0], tmp_path / "old")
    description = read_description(copied)
    del description["run"]
    (copied / "method.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(ModelError, match="did not describe its run"):
        convert(copied, [4])
    description["run"] = {"recipe": 3}
    (copied / "method.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(ModelError, match="describes no run of this version"):
        convert(copied, [4])


def test_a_rank_above_the_matrices_writes_nothing(vera: tuple[Path, float], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        convert(vera[0], [4, 33], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_adapters_of_language_models_are_measured_by_their_loss(tmp_path: Path) -> None:
    data = write_example(TASKS["causal_lm"], tmp_path / "data")
    source = make_any(tmp_path / "llama", "llama", vivid=True)
    path = tmp_path / "lm.toml"
    path.write_text(
        f'name = "lm"\ntask = "causal_lm"\n[model]\nsource = "{source}"\n[data]\n'
        f'source = "{data}"\ntrain = 20\nvalidation = 8\ntest = 8\nmax_length = 24\n'
        "max_new_tokens = 4\n[budget]\nepochs = 1\nbatch_size = 4\nseeds = 1\n"
        "[methods.loha]\nlearning_rate = 0.01\nrank = 4\n",
        encoding="utf-8",
    )
    (run,) = runs(path, "loha")
    folder, record = saved(run, tmp_path)
    found = convert(folder, [16])  # the product of two updates of rank 4
    loss = found.original.scores["token_loss"]
    assert loss == pytest.approx(record.metrics["token_loss"])
    assert found.converted[0].scores["token_loss"] == pytest.approx(loss, rel=1e-4)
