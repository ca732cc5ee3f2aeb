"""One run over several processes: it trains as one on one does, and evaluates and saves as it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_builders import DDP, FSDP, ONE, losses, over, run_all

import language_builders
from builders import make_decoder, mostly_slow
from peft_methods.methods import METHODS
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.export import load_trained
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.tasks.registry import with_task

pytestmark = pytest.mark.timeout(600)
CLOSE = {"rel": 2e-5, "abs": 2e-5}


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("language")
    return make_decoder(folder / "model"), language_builders.write_pairs(folder / "data")


def language_recipe(language: tuple[Path, Path], method: str = "full", **changes: Any) -> Recipe:
    """Return a recipe of epochs with one step, so that its losses are those of steps."""
    budget = {"batch_size": 16, "epochs": 4, "evaluation_batch_size": 2, "seeds": (0,)} | changes
    recipe = language_builders.recipe_of(*language, method, **budget)
    return replace(recipe, data=replace(recipe.data, train=16, validation=4, test=5))


def language_run(recipe: Recipe, name: str) -> RunSpec:
    return RunSpec(recipe, language_builders.method_of(name), 0, "cpu")


def same_results(record: Record, alone: Record) -> None:
    """Check all that does not depend on the number of processes."""
    assert (record.status, alone.status) == ("ok", "ok"), (record.message, alone.message)
    assert losses(record) == pytest.approx(losses(alone), **CLOSE)
    for name in ("validation_loss", "selection"):
        assert [one[name] for one in record.epochs] == pytest.approx(
            [one[name] for one in alone.epochs], **CLOSE
        )
    for name in ("token_loss", "exact_match", "rouge_l", "accuracy", "entity_f1"):
        if name in alone.metrics:
            assert record.metrics[name] == pytest.approx(alone.metrics[name], **CLOSE)
    for name in ("trained_tokens", "trainable_parameters", "checkpoint_bytes"):
        assert record.metrics[name] == alone.metrics[name]
    # The description of the run in the folder, method.json, names the number of GPUs.
    sizes = [one.metrics["saved_model_bytes"] for one in (record, alone)]
    assert sizes[0] == pytest.approx(sizes[1], abs=100)
    assert record.evidence == alone.evidence
    assert record.best_epoch == alone.best_epoch


@pytest.mark.parametrize("name", mostly_slow(METHODS, "full", "lora"))
def test_losses_scores_and_saved_models_are_those_of_one_process(
    name: str, language: tuple[Path, Path], tmp_path: Path
) -> None:
    """The loss is per token, and the shares of a batch have different numbers of tokens."""
    recipe = language_recipe(language, name)
    able = METHODS[name].info.strategies
    runs = [
        language_run(over(recipe, *where), name)
        for where in (ONE, DDP, FSDP)
        if where[1] is None or where[1] in able
    ]
    models = [tmp_path / f"models{number}" for number in range(len(runs))]
    alone, *others = [
        run_all([run], tmp_path / "results", save_models=place)[0]
        for run, place in zip(runs, models, strict=True)
    ]
    if alone.status != "ok":
        pytest.skip(alone.message)
    if name == "pvera":
        pytest.skip("its noise is drawn for the rows of a process, so losses are not the same")
    for record in others:
        same_results(record, alone)
        assert record.metrics["least_peak_memory_bytes"] <= record.metrics["peak_memory_bytes"]
        assert record.metrics["communication_seconds"] > 0
        assert record.metrics["scaling_efficiency"] > 0
        assert len(record.environment["ranks"]) == 2
    assert Store(tmp_path / "results").records()[1] == []
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected, *found = [
            load_trained(place / run.label)(input_ids=ids).logits
            for run, place in zip(runs, models, strict=True)
        ]
    for logits in found:
        assert torch.allclose(expected, logits, atol=1e-4)


@pytest.mark.parametrize("where", [DDP, pytest.param(FSDP, marks=pytest.mark.slow)])
def test_odd_and_packed_batches_are_exact(
    where: tuple[int, str | None], language: tuple[Path, Path], tmp_path: Path
) -> None:
    """In the last batch of an epoch one of the processes has no row."""
    recipe = language_recipe(language, epochs=2, padding="packed", gradient_accumulation=2)
    recipe = replace(recipe, data=replace(recipe.data, train=33))
    runs = [language_run(over(recipe, *one), "full") for one in (ONE, where)]
    alone, together = run_all(runs, tmp_path / "results")
    same_results(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("where", [DDP, FSDP])
@pytest.mark.parametrize("name", ["full", "head_only", "bitfit", "lora"])
def test_taggers_train_as_on_one_process(
    name: str, where: tuple[int, str | None], tagged_recipe: Path, tmp_path: Path
) -> None:
    """The dropout of the model is switched off in a copy of it."""
    recipe = with_task(load_recipe(str(tagged_recipe), ["budget.seeds=1", "budget.epochs=2"]))
    still = without_dropout_in(Path(recipe.model.source), tmp_path / "model")
    recipe = replace(recipe, model=replace(recipe.model, source=str(still)))
    (method,) = chosen_methods(recipe, [name])
    runs = [RunSpec(over(recipe, *one), method, 0, "cpu") for one in (ONE, where)]
    alone, together = run_all(runs, tmp_path / "results")
    same_results(together, alone)


def without_dropout_in(model: Path, copy: Path) -> Path:
    """Copy a model's folder with a config that has no dropout."""
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    still = {name: 0.0 for name in config if "dropout" in name and config[name] is not None}
    (copy / "config.json").write_text(json.dumps(config | still), encoding="utf-8")
    return copy
