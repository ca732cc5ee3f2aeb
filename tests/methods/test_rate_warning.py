"""The warning about learning rates that were tuned for another model."""

from __future__ import annotations

import shutil
from pathlib import Path

from builders import make_model
from peft_methods.methods.rate_warning import rate_warning
from peft_methods.recipes.loading import load_recipe


def warning(recipe: Path | str, model: Path | str, *names: str, weights: str | None = None) -> str:
    replaced = load_recipe(str(recipe), model=str(model), weights=weights)
    return rate_warning(load_recipe(str(recipe)), replaced, names, "tune=…")


def test_the_warning_offers_tuning_and_names_the_source_of_default_rates() -> None:
    text = warning("embedded", "FacebookAI/roberta-base", "lora", "full")
    assert text.startswith(
        "warning: the learning rates were tuned for 'bundled:minilm', not for "
        "'FacebookAI/roberta-base'; a method may look worse than it is. Tune them with tune=…, or "
        "set methods.NAME.learning_rate. Default rates for this kind of model (encoder): "
    )
    assert "LoRA 0.0005 (the paper's, table 9, for SST-2 on a base model)" in text
    assert "IA3" not in text
    assert "IA3" in warning("embedded", "FacebookAI/roberta-base", "all")


def test_default_rates_that_are_the_recipes_are_not_repeated() -> None:
    text = warning("embedded", "/somewhere/tiny-bert", "lora")
    assert text.endswith("set methods.NAME.learning_rate.")


def test_the_same_weights_in_another_place_need_no_warning(
    tiny_recipe: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_models["bert"], tmp_path / "copy")
    assert warning(tiny_recipe, copy) == ""
    assert "were tuned for" in warning(tiny_recipe, make_model(tmp_path / "mpnet", "mpnet"))


def test_no_warning_without_rates_in_the_recipe_or_with_random_weights(tmp_path: Path) -> None:
    text = (
        'name = "mine"\n[model]\nsource = "m"\n[data]\nsource = "d"\ntrain = 9\nvalidation = 9\n'
        'test = 9\n[budget]\nepochs = 1\nbatch_size = 8\n[methods]\ninclude = "all"\n'
    )
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert warning(tmp_path / "mine.toml", "/m") == ""
    assert warning("embedded", "/m", weights="random") == ""
