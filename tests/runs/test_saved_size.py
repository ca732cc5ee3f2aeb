"""The computed sizes of trained models, compared with files that were really written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from builders import METHOD_NAMES, prepared, run_here, small_runs
from peft_methods.models.parameters import size_of
from peft_methods.models.safetensors_size import safetensors_bytes
from peft_methods.runs.export import save_trained
from peft_methods.runs.saved_size import saved_size

FLOAT = 4  # bytes of a trained weight


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_computed_size_of_a_file_is_that_of_the_written_one(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    tensors = {
        "flag": torch.ones(3, dtype=torch.bool),
        "weights.ä": torch.ones(7, 5),
        "a.half": torch.ones(3, dtype=torch.bfloat16),
        "number": torch.tensor(1),
        "z.wide": torch.ones(2, dtype=torch.float64),
        "a.places": torch.ones(2, 3, dtype=torch.int32),
        "empty": torch.ones(0),
    }
    for count in range(len(tensors) + 1):
        some = dict(list(tensors.items())[:count])
        save_file(some, tmp_path / "file", metadata)
        assert safetensors_bytes(some, metadata) == (tmp_path / "file").stat().st_size


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_size_of_every_method_is_that_of_the_saved_folder(
    name: str, kind: str, tiny_models: dict[str, Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = f"model.source={tiny_models[kind]}"
    (run,) = small_runs(tiny_recipe, name, settings)
    _, _, base, model, _ = prepared(tiny_recipe, name, settings)
    found = saved_size(model, run, base, tmp_path / "scratch")
    save_trained(model, run, base, tmp_path / "saved")
    assert found.saved_model_bytes == bytes_in(tmp_path / "saved")
    weights = [*(tmp_path / "scratch").rglob("*.safetensors")]
    assert weights == []  # none were written


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_checkpoint_holds_what_a_task_needs_beside_the_base_model(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    (run,) = small_runs(tiny_recipe, name)
    _, method, base, model, _ = prepared(tiny_recipe, name)
    trained = sum(size_of(p) for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in method.saved_parameters(model).values()) - trained
    found = saved_size(model, run, base, tmp_path).checkpoint_bytes
    header = found - FLOAT * (trained + frozen)
    assert 0 < header < 200 * (1 + len(method.saved_parameters(model)))
    sources = method.prerequisites(run.recipe)
    expected = sum(m.expected_trainable(base.architecture) or 0 for _, m in sources)
    assert frozen == expected or name == "psoft"  # which keeps the singular vectors that it turns


def test_record_has_both_sizes_of_the_saved_model(tiny_recipe: Path, tmp_path: Path) -> None:
    """BitFit's biases are few, but its folder holds the whole model."""
    (run,) = small_runs(tiny_recipe, "bitfit")
    metrics = run_here(run, tmp_path)[0].metrics
    small, whole = metrics["checkpoint_bytes"], metrics["saved_model_bytes"]
    assert small is not None
    assert whole is not None
    assert metrics["total_parameters"] is not None
    assert small < 0.2 * whole
    assert whole > FLOAT * metrics["total_parameters"]


def test_saved_tokenizer_is_the_models_whether_or_not_rows_were_tokenized(
    tiny_recipe: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """A call of a tokenizer changes how it truncates and pads. Cached rows need no call."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["bert"])
    tokenizer.backend_tokenizer.enable_truncation(9)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    shutil.copytree(tiny_models["bert"], tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    saved = []
    for length in (64, 4):
        _, _, base, model, _ = prepared(
            tiny_recipe, "lora", f"model.source={tmp_path / 'model'}", f"data.max_length={length}"
        )
        (run,) = small_runs(tiny_recipe, "lora", f"model.source={tmp_path / 'model'}")
        save_trained(model, run, base, tmp_path / f"saved{length}")
        saved.append((tmp_path / f"saved{length}" / "tokenizer.json").read_text())
    assert saved == [(tmp_path / "model" / "tokenizer.json").read_text()] * 2
