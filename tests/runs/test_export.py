"""Saved models, loaded in a fresh process by the code of their README, predict as measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from builders import CORE, LACKING, TASK, make_any, make_model, small_runs
from peft_methods.data import splits
from peft_methods.methods.registry import METHODS
from peft_methods.runs import pipeline
from peft_methods.runs.description import portable
from peft_methods.runs.export import load_trained
from peft_methods.runs.run_paths import RunPaths
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.utils.errors import ModelError

Saved = Callable[[str], tuple[Path, ClassPredictions]]  # a method's folder and predictions
# Method and model of each saved folder: what follows an @ only tells folders apart.
# RoBERTa's head has several layers, BERT here an untrained
# pooler, which is trained like a head.
SAVED = {
    "full": "bert",
    "bitfit": "roberta",
    "lora": "bert",
    "qlora": "bert",
    "ia3": "roberta",
    "adapter": "bert",
    "full@llama": "llama",
    "lora@gpt2": "gpt2",
    "qlora@qwen2": "qwen2",
    "ia3@phi3": "phi3",
    "adapter@opt": "opt",
    "lora@t5": "t5",
    "adapter@bart": "bart",
    **{name: "bert" for name in METHODS if name not in {*CORE, *LACKING}},
}
# Runs every code block of the READMEs in folders, and predicts the given texts after each.
LOADER = """
import json, os, re, sys
from pathlib import Path
import numpy as np
import torch, transformers

texts, found = json.loads(Path(sys.argv[1]).read_text()), {}
def predict(model, tokenizer):
    model.eval()
    with torch.no_grad():
        batch = tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        return model(**batch).logits.numpy()

for folder in map(Path, sys.argv[3:]):
    os.chdir(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(".")
    blocks = re.findall("```python\\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    for number, block in enumerate(blocks):
        names = {}
        exec(block, names)
        found[f"{folder.name}/{number}"] = predict(names["model"], tokenizer)
        if 'save_pretrained("merged")' in block:
            auto = transformers.AutoModelForSequenceClassification
            merged, info = auto.from_pretrained("merged", output_loading_info=True)
            assert not info["missing_keys"], info
            assert merged.config.id2label[1] == names["model"].config.id2label[1]
            found[f"{folder.name}/merged"] = predict(merged, tokenizer)
np.savez(sys.argv[2], **found)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder of its own: no saved file may name it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def saved(home: Path, tiny_recipe: Path) -> Saved:
    """Train and save a method when it is first asked for."""
    make_model(home / "bert", "bert", trained_pooler=False)
    make_model(home / "roberta", "roberta")
    for kind in ("llama", "gpt2", "qwen2", "phi3", "opt", "t5", "bart"):
        make_any(home / kind, kind)

    @cache
    def trained(name: str) -> tuple[Path, ClassPredictions]:
        source = f"model.source={home / SAVED[name]}"
        method = name.partition("@")[0]
        (run,) = small_runs(tiny_recipe, method, source, "data.train=80", "budget.epochs=2")
        folder, work = home / "saved" / name, home / "work" / name
        work.mkdir(parents=True)
        paths = RunPaths(work, save_to=folder)
        record, predictions = pipeline.execute(run, paths, lambda news: None, threads=1)
        assert record.status == "ok", record.message
        assert predictions is not None
        return folder, predictions

    return trained


@pytest.fixture(scope="module")
def texts(tiny_recipe: Path) -> list[str]:
    """The test rows in the order of the predictions."""
    (run,) = small_runs(tiny_recipe, "full", "data.train=80")
    return splits.load(run.recipe.data, TASK).splits["test"].texts


@pytest.mark.slow
def test_every_readme_loads_the_model_that_was_measured(
    saved: Saved, texts: list[str], home: Path
) -> None:
    (home / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    folders = [str(saved(name)[0]) for name in SAVED]
    command = [sys.executable, "-c", LOADER, str(home / "texts.json"), str(home / "logits.npz")]
    search = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [*command, *folders],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits = np.load(home / "logits.npz")
    loaded = {name: [key for key in logits if key.startswith(f"{name}/")] for name in SAVED}
    for name, keys in loaded.items():  # blocks of code, merged models
        info = METHODS[name.partition("@")[0]].info
        blocks = 2 if info.saved_format == "peft" else 1
        assert len(keys) == blocks + 2 * info.mergeable, name
    for name in SAVED:
        for key in loaded[name]:
            assert np.abs(logits[key] - saved(name)[1].logits).max() < 1e-4, key


@pytest.mark.slow
def test_load_trained_loads_every_format_and_names_the_labels(
    saved: Saved,
) -> None:
    for name in SAVED:
        model = load_trained(saved(name)[0])
        assert not model.training
        assert model.config.id2label == {0: "0", 1: "1"}


@pytest.mark.parametrize(
    "name",
    [name if name == "lora" else pytest.param(name, marks=pytest.mark.slow) for name in SAVED],
)
def test_saved_folder_names_no_home_folder_and_has_the_labels(
    name: str, saved: Saved, home: Path
) -> None:
    folder, _ = saved(name)
    for file in folder.rglob("*"):
        assert not file.is_file() or str(home).encode() not in file.read_bytes(), file
    description = json.loads((folder / "method.json").read_text(encoding="utf-8"))
    assert description["model"]["source"] == f"~/{SAVED[name]}"
    if METHODS[name.partition("@")[0]].info.saved_format == "peft":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["id2label"] == {"0": "0", "1": "1"}
        assert "quantization_config" not in config
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert adapter["base_model_name_or_path"] == f"~/{SAVED[name]}"


@pytest.mark.slow
def test_saved_qlora_describes_its_quantisation(saved: Saved) -> None:
    folder, _ = saved("qlora")
    description = json.loads((folder / "method.json").read_text(encoding="utf-8"))
    assert description["quantization"]["bnb_4bit_quant_type"] == "nf4"
    assert "classifier" in description["quantization"]["llm_int8_skip_modules"]


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("qlora", "ia3", "adapter")),
    ],
)
def test_readme_warns_where_transformers_would_draw_a_new_head(name: str, saved: Saved) -> None:
    text = (saved(name)[0] / "README.md").read_text(encoding="utf-8")
    assert "Do not load this folder with" in text
    assert "`pipeline()`" in text
    assert "peft_methods.load_trained(folder)" in text


def test_another_base_model_is_refused_and_a_moved_one_can_be_named(
    saved: Saved, home: Path, tmp_path: Path
) -> None:
    import torch
    import transformers

    folder, _ = saved("lora")
    moved = make_model(tmp_path / "moved", "bert", trained_pooler=False)
    load_trained(folder, base=moved)
    torch.manual_seed(1)
    other = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(moved))
    other.save_pretrained(moved)
    with pytest.raises(ModelError, match="trained on another base model"):
        load_trained(folder, base=moved)
    with pytest.raises(ModelError, match=r"cannot be loaded: there is no folder .* base=FOLDER"):
        load_trained(folder, base=tmp_path / "absent")


@pytest.mark.parametrize("name", ["qlora", pytest.param("adapter", marks=pytest.mark.slow)])
def test_merging_what_cannot_be_merged_is_refused(name: str, saved: Saved) -> None:
    with pytest.raises(ModelError, match="cannot be merged"):
        load_trained(saved(name)[0], merge=True)


@pytest.mark.parametrize("name", ["lora", "bitfit", "adapter"])
def test_a_saved_model_without_one_of_its_tensors_is_refused(
    name: str, saved: Saved, tmp_path: Path
) -> None:
    """PEFT and transformers only warn, and use random numbers instead."""
    folder = tmp_path / "cut"
    shutil.copytree(saved(name)[0], folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 tensors of this method"):
        load_trained(folder)


def test_folder_without_a_saved_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model saved by peft_methods"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("bundled:minilm", "bundled:minilm"),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("~/bert", "~/bert"),
        ("{home}/bert", "~/bert"),
        ("{home}/absent", "{home}/absent"),
    ],
)
def test_portable_source_names_no_home_folder(
    source: str,
    expected: str,
    saved: Saved,
    home: Path,
) -> None:
    assert portable(source.format(home=home)) == expected.format(home=home)
