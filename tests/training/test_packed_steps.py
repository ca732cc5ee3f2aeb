"""Packed steps of the cuda_graphs engine, compared one by one with padded steps of the Trainer.

Without a GPU a step is called directly, and attention is computed with a mask.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import (
    DECODERS,
    Recorder,
    StepLog,
    make_decoder,
    mostly_slow,
    train_with_both_engines,
    training_job,
    without_dropout,
)
from language_builders import ready, recipe_of, write_pairs
from peft_methods.methods.registry import METHODS
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.trainer import loop

pytestmark = pytest.mark.filterwarnings("ignore:.*AccumulateGrad.*")
NAMES = [name for name in METHODS if name not in {"head_only", "adapter_fusion"}]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data")


def made_decoder(folder: Path, kind: str) -> Path:
    """Write a decoder, of which OPT's dropout is no module and is switched off here."""
    model = make_decoder(folder, kind)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "dropout" in config:
        config["dropout"] = 0.0
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


def trained(
    kind: type[loop.RunTrainer], model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> tuple[StepLog, Any, torch.Tensor]:
    """Train without dropout. Return the log of the steps, the result and the weights."""
    folder.mkdir(parents=True)
    log = StepLog(kind)
    made = ready(recipe_of(model, data, name, **changes), name)
    without_dropout(made[3])
    result = loop.train(training_job(made, folder), Recorder(), trainer_class=log.kind)
    return log, result, torch.cat([p.detach().flatten() for p in made[3].parameters()])


def assert_equal_trainings(
    model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> None:
    one, padded, expected = trained(loop.RunTrainer, model, data, folder / "a", name, **changes)
    other, packed, found = trained(CudaGraphsTrainer, model, data, folder / "b", name, **changes)
    assert len(one.losses) >= 10
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    assert other.norms == pytest.approx(one.norms, rel=1e-3, abs=1e-6)
    assert torch.allclose(found, expected, atol=2e-4)
    for epoch, padded_epoch in zip(packed.epochs, padded.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(padded_epoch.train_loss, rel=1e-5)
        assert epoch.validation_loss == pytest.approx(padded_epoch.validation_loss, rel=1e-5)
    assert packed.tokens == padded.tokens


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_padded_batches_with_every_method(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    kind = "gpt_neox" if name == "bitfit" else "llama"  # Llama has no biases
    model = make_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, name, max_length=40)


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "qwen2", "gemma2", "mistral", "opt"))
def test_steps_are_those_of_padded_batches_with_every_model(
    kind: str, tmp_path: Path, pairs: Path
) -> None:
    model = made_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, "lora", max_length=40)


@pytest.mark.parametrize("padding", ["dynamic", "fixed", "packed"])
def test_accumulation_checkpointing_and_loss_on_all_tokens_agree_too(
    padding: str, tmp_path: Path, pairs: Path
) -> None:
    model = make_decoder(tmp_path / "llama")
    settings = {
        "gradient_accumulation": 2,
        "batch_size": 3,
        "loss_on": "all",
        "gradient_checkpointing": True,
        "padding": padding,
    }
    assert_equal_trainings(model, pairs, tmp_path, "full", max_length=40, **settings)


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "llama", "gpt2"))
def test_steps_of_classifiers_are_those_of_padded_batches(
    kind: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    source = made_decoder(tmp_path / kind, kind)
    settings = (f"model.source={source}", "methods.lora.learning_rate=1e-4")  # or rounding grows
    train_with_both_engines(tiny_recipe, tmp_path, "lora", *settings)
