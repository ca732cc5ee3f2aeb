"""Weights in files: the same tensors in another place, and poolers that were never trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from builders import TASK, make_model
from peft_methods.models import loading
from peft_methods.models.parameters import count_parameters
from peft_methods.models.stored_weights import have_same_weights, stored_tensors
from peft_methods.recipes.schema import ModelSpec


def rewritten(source: Path, folder: Path, *, prefix: str = "", change: float = 0.0) -> ModelSpec:
    """Write the weights of a model under other names, in another order and with other metadata."""
    folder.mkdir()
    weights = load_file(source / "model.safetensors")
    tensors = {prefix + name: weights[name] + change for name in sorted(weights, reverse=True)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "by": "hand"})
    return ModelSpec(str(folder))


def test_weights_are_the_same_whatever_their_names(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    bert = ModelSpec(str(tiny_models["bert"]))
    copy = ModelSpec(str(shutil.copytree(tiny_models["bert"], tmp_path / "copy")))
    assert have_same_weights(bert, copy)
    named = rewritten(tiny_models["bert"], tmp_path / "named", prefix="bert.")
    assert have_same_weights(bert, named)
    assert not have_same_weights(bert, rewritten(tiny_models["bert"], tmp_path / "b", change=1e-3))
    assert not have_same_weights(bert, ModelSpec(str(tiny_models["mpnet"])))


@pytest.mark.parametrize("source", ["/nowhere/x", "nobody/nothing", "bundled:nothing", "a b/c d/e"])
def test_weights_that_are_not_on_this_machine_are_not_the_same(source: str) -> None:
    assert not have_same_weights(ModelSpec(source), ModelSpec(source))


def test_a_damaged_file_has_no_tensors(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 40, (5).to_bytes(8, "little") + b"{}   "):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert stored_tensors(tmp_path) == []


def head_of(folder: Path, weights: str) -> int:
    base = loading.load(ModelSpec(str(folder), weights=weights), TASK.head, ("no", "yes"))
    for parameter in base.model.parameters():
        parameter.requires_grad = True
    return count_parameters(base.model, base.head).head


def test_random_weights_have_the_head_of_the_real_model(tmp_path: Path) -> None:
    """A pooler without training is part of the head, and so is one that the weights lack."""
    idle = make_model(tmp_path / "idle", trained_pooler=False)
    trained = make_model(tmp_path / "trained")
    without = make_model(tmp_path / "without")
    config = transformers.AutoConfig.from_pretrained(without)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(without)
    classifier, pooler = 2 * 32 + 2, 32 * 32 + 32
    for folder, size in (
        (idle, pooler + classifier),
        (trained, classifier),
        (without, pooler + classifier),
    ):
        assert head_of(folder, "pretrained") == head_of(folder, "random") == size
    (trained / "model.safetensors").unlink()
    assert head_of(trained, "random") == classifier


def test_a_random_pooler_of_the_head_follows_the_seed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "idle", trained_pooler=False)

    def pooler(seed: int) -> torch.Tensor:
        transformers.set_seed(seed)
        spec = ModelSpec(str(folder), weights="random")
        model = loading.load(spec, TASK.head, ("no", "yes")).model
        return model.get_parameter("bert.pooler.dense.weight")

    assert torch.equal(pooler(1), pooler(1))
    assert not torch.equal(pooler(1), pooler(2))
