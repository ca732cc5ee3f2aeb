"""What is estimated: a recipe whose model is its config alone, from a model and settings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.methods.selection import chosen_methods, with_methods
from peft_methods.models import presets
from peft_methods.models.config import folder_or_id, kind_of
from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import DEFAULT_TASK, ModelSpec, Recipe
from peft_methods.tasks.inference import infer_task
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import ModelError, OptionError, first_line, nearest
from peft_methods.utils.files import is_only_a_path, path_of

RECIPES = {  # the usual ones, by task
    "text_classification": "imdb_roberta",
    "causal_lm": "gsm8k_sft",
    "multilabel": "goemotions_multilabel",
    "regression": "stsb_regression",
    "token_classification": "wnut17_ner",
}
DECODER_RECIPES = {**RECIPES, "text_classification": "imdb_decoder"}
DEVICE = "cuda"  # what is estimated is training on a GPU
MOST_ROWS, MOST_TOKENS = 4_096, 1_048_576  # of a batch and of a row; more is a slip of the pen
CONFIG, CODE = "config.json", "*.py"
PATIENCE = 4.0  # seconds for the hub to accept a connection, and to answer
SAME_FAMILY = 0.7  # similarity of the first words of names
# Without these a config stands for a model of its library's default size.
SIZES = ("hidden_size", "num_hidden_layers")


@dataclass(frozen=True)
class Question:
    """A recipe with random weights, the methods to estimate and the engine that trains them.

    `model` is the model as the user named it. `notes` say what was chosen for the user.
    """

    model: str
    recipe: Recipe
    methods: tuple[Method, ...]
    engine: str
    notes: tuple[str, ...] = ()


def question_of(
    model: str,
    *,
    data: str | None = None,
    recipe: str | None = None,
    task: str | None = None,
    methods: Sequence[str] = (),
    batch_size: int | None = None,
    max_length: int | None = None,
    precision: str | None = None,
    checkpointing: bool | None = None,
    engine: str = "auto",
    settings: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> Question:
    """Compose the recipe. No weights are read, and of the hub nothing but a config.

    Raises `OptionError` for a bad value and `ModelError` for a model without a usable config.
    """
    _check_number("budget.batch_size", batch_size, MOST_ROWS)
    _check_number("data.max_length", max_length, MOST_TOKENS)
    source = config_source(model, trust_remote_code=trust_remote_code)
    notes = []
    if recipe is None:
        recipe = _usual_recipe(source, task)
        of = "model and task" if task else "model"
        notes.append(f"recipe {recipe}, the usual one for this kind of {of} (--recipe: another)")
    given: dict[str, Any] = {
        "budget.batch_size": batch_size,
        "data.max_length": max_length,
        "budget.precision": precision,
        "budget.gradient_checkpointing": checkpointing,
        "model.trust_remote_code": trust_remote_code or None,
        "task": task,
    }
    own = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    loaded = load_recipe(
        recipe,
        (*settings, *own),
        model=source,
        data=data,
        weights="random",
        infer_task=infer_task,
    )
    loaded = with_methods(loaded, methods)
    _check_number("budget.batch_size", loaded.budget.batch_size, MOST_ROWS)
    _check_number("data.max_length", loaded.data.max_length, MOST_TOKENS)
    return Question(
        model,
        loaded,
        tuple(chosen_methods(loaded, methods)),
        choose_engine(engine, DEVICE, loaded.budget.gpus),
        (*notes, *loaded.notes),
    )


def _usual_recipe(source: str, task: str | None) -> str:
    """Return the recipe for a kind of model and a task; the task of an unknown name is refused."""
    if kind_of(ModelSpec(source)) == "decoder":
        return DECODER_RECIPES.get(task or "causal_lm", DECODER_RECIPES["causal_lm"])
    return RECIPES.get(task or DEFAULT_TASK, RECIPES[DEFAULT_TASK])


def _check_number(setting: str, value: int | None, most: int) -> None:
    if value is not None and not 1 <= value <= most:
        raise OptionError(
            f"{setting} = {value:,} should be a whole number from 1 to {most:,}.", setting=setting
        )


def config_source(model: str, *, trust_remote_code: bool = False) -> str:
    """Return where the config of a model is: a preset's name, a folder or a file.

    Of a model on the hub that is no preset, the config alone is fetched, and the model's own code
    if it is allowed to run. Raises `ModelError`.
    """
    model = bundled_name(model)
    if model in presets.presets():
        return model
    place = folder_or_id(model)
    path = path_of(place)
    if path is not None:
        _check_sizes(model, path)
        return place
    if is_only_a_path(model):
        raise ModelError(
            f"there is no folder {model}. Give a folder with config.json, the path of that file, a "
            f"hub id, or one of the presets: {', '.join(presets.shape_names())}."
        )
    path = _fetched(model, trust_remote_code=trust_remote_code)
    _check_sizes(model, path)
    return str(path)


def _fetched(model: str, *, trust_remote_code: bool) -> Path:
    """Return the folder or file of a hub model's config, from the cache or the hub."""
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        _ask_for_config(model)
        if trust_remote_code:
            return Path(snapshot_download(model, allow_patterns=[CONFIG, CODE]))
        return Path(hf_hub_download(model, CONFIG, etag_timeout=PATIENCE))
    except Exception as error:  # the hub's errors have a dozen types
        raise ModelError(
            f"the config of {model!r} cannot be fetched from the hub ({first_line(error)}). Check "
            f"the name and the network, or give a folder with config.json or a preset."
            f"{_nearest_preset(model)} Presets: {', '.join(presets.shape_names())}."
        ) from None


def _ask_for_config(model: str) -> None:
    """Raise whatever the hub answers for a config that is not in its cache, or that it cannot.

    Downloads are retried for half a minute; this is one short question before them.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(model, CONFIG), str):
        get_hf_file_metadata(hf_hub_url(model, CONFIG), timeout=PATIENCE)


def _nearest_preset(model: str) -> str:
    """Return ` Did you mean …?` for a preset of the same family, judged by the first word."""
    family = _first_word(model.rpartition("/")[2])
    likely = [one for one in presets.presets() if nearest(family, [_first_word(one)], SAME_FAMILY)]
    return nearest(model.rpartition("/")[2], likely)


def _first_word(name: str) -> str:
    return re.split(r"[^a-z]", name.casefold(), maxsplit=1)[0]


def _check_sizes(model: str, path: Path) -> None:
    """Raise `ModelError` for a config without the sizes of a model; loading reports other flaws."""
    from transformers import CONFIG_MAPPING

    file = path / CONFIG if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind = values["model_type"]
    except OSError:
        raise ModelError(
            f"{model!r} has no {CONFIG}. Give a folder with that file, or its path."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ModelError(
            f"the {CONFIG} of {model!r} does not describe a model: it should be a JSON object with "
            f'"model_type".'
        ) from None
    if "auto_map" in values or kind not in CONFIG_MAPPING:
        return  # the model's own code, which loading refuses or runs; or an unknown type
    names = CONFIG_MAPPING[kind].attribute_map
    text = values.get("text_config", values)
    missing = [name for name in SIZES if not {name, names.get(name, name)} & set(text)]
    if missing:
        raise ModelError(
            f"the {CONFIG} of {model!r} has no {' and no '.join(missing)}, so the sizes of the "
            f"model are unknown. Add them, or give another model."
        )


def with_length(recipe: Recipe, length: int) -> Recipe:
    """Return the recipe with rows of at most so many tokens."""
    return replace(recipe, data=replace(recipe.data, max_length=length))


def with_batch(recipe: Recipe, rows: int, accumulation: int | None = None) -> Recipe:
    """Return the recipe with batches of so many rows, and so many batches in an optimizer step."""
    steps = recipe.budget.gradient_accumulation if accumulation is None else accumulation
    budget = replace(recipe.budget, batch_size=rows, gradient_accumulation=steps)
    return replace(recipe, budget=budget)


def with_checkpointing(recipe: Recipe) -> Recipe:
    """Return the recipe with gradient checkpointing."""
    return replace(recipe, budget=replace(recipe.budget, gradient_checkpointing=True))
