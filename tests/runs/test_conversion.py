"""A saved adapter is converted to LoRA, measured on its test rows, and saved as LoRA is."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import make_any, runs, small_runs, write_example
from peft_methods.__main__ import main
from peft_methods.report.text.conversion import conversion_text
from peft_methods.runs import pipeline
from peft_methods.runs.conversion import convert, error_of_change
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
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]
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
    assert again.run.method.name == "vera"
    assert conversion_text(again).startswith("LoRA, converted from VeRA as trained by the recipe ")


def test_a_conversion_of_a_conversion_is_still_of_the_run(
    vera: tuple[Path, float], tmp_path: Path
) -> None:
    convert(vera[0], [4], output=tmp_path / "first")
    convert(tmp_path / "first", [2], output=tmp_path / "second")
    trained, found = read_description(vera[0]), read_description(tmp_path / "second")
    assert (found["method"], found["settings"]["rank"]) == ("lora", 2)
    assert found["converted_from"] == "VeRA"
    assert (found["run"], found["data_sha256"]) == (trained["run"], trained["data_sha256"])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_file_of_another_folder_is_touched(
    vera: tuple[Path, float], bitfit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(vera[0], tmp_path / "vera")
    (source / "fingerprint.txt").write_text("that of the run with VeRA", encoding="utf-8")
    other = shutil.copytree(bitfit, tmp_path / "bitfit")
    used = tmp_path / "used"
    used.mkdir()
    (used / "rank-4").write_text("a file", encoding="utf-8")
    before = contents(tmp_path)
    for output, message in [
        (source, "is not empty. Give a new folder or an empty one."),
        (other, "is not empty."),
        (used, "is not empty."),
        (used / "rank-4", "is a file; give a folder"),
        (used / "rank-4" / "out", "is a file; give a folder"),
    ]:
        assert main(["convert", str(source), "--rank=4,8", "-o", str(output)]) == 4
        captured = capsys.readouterr()
        assert message in captured.err.strip().splitlines()[-1]
        assert captured.out == ""
    assert contents(tmp_path) == before


def test_what_fails_leaves_no_folder(
    vera: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "out"
    assert main(["convert", str(vera[0]), "--rank=4,99", "-o", str(output)]) == 4
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        assert main(["convert", str(vera[0]), "--rank=32", "-o", str(output)]) == 4
    finally:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the converted adapter cannot be saved: " in message
    assert message.endswith("Change it with --output.")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_takes_the_adapter(vera: tuple[Path, float], tmp_path: Path) -> None:
    convert(vera[0], [4], output=tmp_path)
    assert read_description(tmp_path)["method"] == "lora"
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


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
        ((bitfit, "--rank=4"), 2, "BitFit cannot be converted to LoRA: only PEFT's adapters of"),
        ((folder, "--rank=33"), 4, "rank = 33 is above the smallest matrix that VeRA changes here"),
        ((folder, "--rank=0"), 4, "rank '0' should be a whole number from 1 to 999,999"),
        ((folder, f"--rank={'9' * 5000}"), 4, "from 1 to 999,999. Write ranks as 8,16."),
        ((folder, "--rank=4", "--to=lroa"), 4, "unknown method for --to 'lroa'. Did you mean"),
        ((folder, "--rank=four"), 4, "rank 'four' should be a whole number from 1"),
        ((folder, "--rank=4", "--data="), 4, "--data is empty. Name a place, or leave it out."),
        ((folder, "--rank=4", "--test-data="), 4, "--test-data is empty."),
        ((folder, "--rank=4", "--base="), 4, "--base is empty."),
        ((folder, "--rank=4", "-o", ""), 4, "--output is empty."),
        ((folder, "--rank=4", f"--data={tmp_path}/no"), 2, "Change it with --data."),
        ((folder, "--rank=4", f"--base={tmp_path}/no"), 2, "Change it with --base."),
        (
            (folder, "--rank=4", f"--test-data={tmp_path}"),
            4,
            "takes its test rows from data.source",
        ),
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
    assert found.same_rows
    for name in ("train", "test"):
        file = moved / f"{name}.jsonl"
        text = file.read_text(encoding="utf-8").replace('"label": 0', '"label": 2')
        file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"has the labels 1, 2, and the model in .* 0, 1"):
        convert(folder, [4], data=str(moved))


def swap_labels(folder: Path) -> None:
    for file in folder.glob("*.jsonl"):
        text = file.read_text(encoding="utf-8").replace('"label": 0', '"label": 9')
        text = text.replace('"label": 1', '"label": 0').replace('"label": 9', '"label": 1')
        file.write_text(text, encoding="utf-8")


def rewritten(folder: Path, copy: Path, **parts: Any) -> Path:
    """Return a copy of a saved model with other parts in its description."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    text = json.dumps(read_description(folder) | parts)
    (copy / "method.json").write_text(text, encoding="utf-8")
    return copy


def test_rows_that_have_changed_are_refused_and_others_on_purpose_are_named(
    vera: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, accuracy = vera
    trained = read_description(folder)
    source = Path(run_of(trained, folder).recipe.data.source).expanduser()
    swap_labels(changed := shutil.copytree(source, tmp_path / "changed"))
    data = trained["run"]["recipe"]["data"] | {"source": str(changed)}
    run = trained["run"] | {"recipe": trained["run"]["recipe"] | {"data": data}}
    later = rewritten(folder, tmp_path / "later", run=run)
    assert main(["convert", str(later), "--rank=4"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "has other rows now than when the model in" in captured.err
    assert captured.err.strip().endswith("Change it with --data.")
    arguments = ["--rank=4", f"--data={changed}", "-o", str(tmp_path / "out")]
    assert main(["convert", str(folder), *arguments]) == 0
    assert "These are not the rows of its run" in capsys.readouterr().out
    assert convert(folder, [4], data=str(changed)).original.scores["accuracy"] < 0.3 < accuracy
    assert read_description(tmp_path / "out")["run"] == trained["run"]


def test_a_damaged_description_is_one_line(
    vera: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parts in (
        {"label_names": 3},
        {"label_names": [3, 4]},
        {"settings": []},
        {"model": "bert"},
        {"method": ["vera"]},
        {"method": "verra"},
        {"task": "classification"},
        {"task": 3},
        {"weights_sha256": 3},
        {"precision": 3},
        {"run": {"recipe": 3}},
        {"run": read_description(vera[0])["run"] | {"seed": float("inf")}},
    ):
        folder = rewritten(vera[0], tmp_path / "damaged", **parts)
        assert main(["convert", str(folder), "--rank=4"]) == 2, parts
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    folder = rewritten(vera[0], tmp_path / "damaged", model={"sourse": "bert"})
    with pytest.raises(ModelError, match="sourse"):
        load_trained(folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_file_is_named_and_not_looked_for_on_the_hub(
    name: str, vera: tuple[Path, float], tmp_path: Path
) -> None:
    folder = shutil.copytree(vera[0], tmp_path / "lacks")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"lacks cannot be loaded: it has no file {name}"):
        convert(folder, [4])
    (folder / name).mkdir()
    with pytest.raises(ModelError, match=f"it has no file {name}"):
        load_trained(folder)


def test_a_folder_of_an_earlier_version_is_refused(
    vera: tuple[Path, float], tmp_path: Path
) -> None:
    copied = shutil.copytree(vera[0], tmp_path / "old")
    for part in ("run", "data_sha256"):
        description = read_description(vera[0])
        del description[part]
        (copied / "method.json").write_text(json.dumps(description), encoding="utf-8")
        with pytest.raises(ModelError, match="did not describe its run"):
            convert(copied, [4])
    description = read_description(vera[0]) | {"run": {"recipe": 3}}
    (copied / "method.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(ModelError, match="describes no run of this version"):
        convert(copied, [4])


def test_a_rank_above_the_matrices_writes_nothing(vera: tuple[Path, float], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        convert(vera[0], [4, 33], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("regression", "bert"),
        ("token_classification", "bert"),
        ("text_classification", "gpt2"),
    ],
)
def test_other_tasks_and_models_at_the_full_rank(task: str, kind: str, tmp_path: Path) -> None:
    """GPT-2 stores its weights transposed, and its matrices have unequal sides."""
    data = write_example(TASKS[task], tmp_path / "data")
    source = make_any(tmp_path / kind, kind, vivid=True)
    path = tmp_path / "own.toml"
    path.write_text(
        f'name = "own"\ntask = "{task}"\n[model]\nsource = "{source}"\n[data]\n'
        f'source = "{data}"\ntrain = 20\nvalidation = 8\ntest = 8\nmax_length = 24\n'
        "[budget]\nepochs = 1\nbatch_size = 4\nseeds = 1\n"
        "[methods.lora]\nlearning_rate = 0.01\nrank = 4\nalpha = 8\n",
        encoding="utf-8",
    )
    folder, record = saved(runs(path, "lora")[0], tmp_path)
    found = convert(folder, [1, 4])
    main_metric = TASKS[task].metrics[0].name
    assert found.original.scores[main_metric] == pytest.approx(record.metrics[main_metric])
    low, full = found.converted
    assert full.scores == pytest.approx(found.original.scores, rel=1e-4)
    assert full.error == pytest.approx(0, abs=1e-4)
    assert low.error is not None
    assert 0.05 < low.error < 1


def test_the_error_is_that_of_the_matrices_of_any_class() -> None:
    """A subclass of Linear stores its weights as Linear does."""
    from peft import LoraConfig, get_peft_model

    class Scaled(torch.nn.Linear):
        pass

    def adapted() -> Any:
        torch.manual_seed(0)
        plain = torch.nn.Sequential(Scaled(3, 5))
        config = LoraConfig(target_modules=["0"], r=2, lora_alpha=2, init_lora_weights=False)
        return get_peft_model(plain, config)

    model, other = adapted(), adapted()
    layer = "base_model.model.0"
    assert error_of_change(model, other, [layer]) == 0
    other.get_submodule(layer).lora_B["default"].weight.data.mul_(0.75)
    assert error_of_change(model, other, [layer]) == pytest.approx(0.25)


def test_several_ranks_of_miss_have_the_folder_of_its_rank(
    tiny_recipe: Path, models: Path, tmp_path: Path
) -> None:
    folder, _ = train(tiny_recipe, models, "miss", "bert")
    rank = convert(folder, [2, 4], output=tmp_path / "out").converted[0].rank
    assert [one.name for one in (tmp_path / "out").iterdir()] == [f"rank-{rank}"]


def test_test_rows_with_a_source_of_their_own_can_be_named(
    tiny_recipe: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_any(models / "bert", "bert", vivid=True)
    (run,) = small_runs(tiny_recipe, "lora", f"model.source={source}", "budget.epochs=1")
    own = shutil.copytree(Path(run.recipe.data.source), tmp_path / "own")
    recipe = replace(run.recipe, data=replace(run.recipe.data, test_source=str(own)))
    folder, record = saved(replace(run, recipe=recipe), tmp_path)
    own.rename(tmp_path / "moved")
    assert main(["convert", str(folder), "--rank=4"]) == 2
    assert capsys.readouterr().err.strip().endswith("Change it with --test-data.")
    found = convert(folder, [4], test_data=str(tmp_path / "moved"))
    assert found.same_rows
    assert found.original.scores["accuracy"] == record.metrics["accuracy"]


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
