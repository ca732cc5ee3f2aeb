"""Recipes loaded from TOML files, with the settings and sources that replace theirs."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from os.path import isfile
from pathlib import Path
from typing import Any, get_args, get_type_hints

from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.recipes.schema import DEFAULT_TASK, ModelSpec, Recipe
from peft_methods.utils.errors import OptionError, unknown
from peft_methods.utils.validation import build

FOLDER = Path(__file__).parent  # of the shipped recipes


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes that are part of the project, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the TOML file of a shipped recipe or of a path. Raises `OptionError`."""
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        if not isfile(path):
            raise OptionError(
                f"recipe file {name!r} does not exist. Shipped recipes: {', '.join(shipped)}."
            )
        return path
    raise OptionError(unknown("recipe", name, shipped) + " Or give the path of a TOML file.")


def load_recipe(
    name: str,
    settings: Sequence[str] = (),
    *,
    model: str | None = None,
    data: str | None = None,
    weights: str | None = None,
    infer_task: Callable[[Recipe], Recipe] | None = None,
) -> Recipe:
    """Load a recipe by name or path, with `KEY=VALUE` settings applied.

    `model`, `weights` and `data` replace those of the recipe. With other data its sizes are upper
    limits, unless it sets `data.sizes`. `infer_task` sets the task where neither the file nor a
    setting names one. Raises `OptionError` for invalid TOML, unknown keys and invalid values.
    """
    path = find_recipe(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # not UTF-8, not TOML, a number of thousands of digits, a thousand nested brackets
        raise OptionError(f"{path.name} is not valid TOML: {error}.") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}.") from None
    _make_sections(values, path.name)
    if data is not None:
        _replace_data(values, bundled_name(data))
    if model is not None:
        _replace_model(values, bundled_name(model))
    if weights is not None:
        _set_weights(values, weights)
    task = values.get("task", DEFAULT_TASK)
    for setting in settings:
        apply_setting(values, setting)
    _make_sections(values, path.name)
    if values.get("task", DEFAULT_TASK) != task:
        _forget_metric(values, settings)
    recipe = build(Recipe, values, path.name)
    if data is not None:
        recipe = replace(recipe, notes=(*recipe.notes, _data_note(recipe)))
    return recipe if infer_task is None or "task" in values else infer_task(recipe)


def _forget_metric(values: dict[str, Any], settings: Sequence[str]) -> None:
    """Remove the metric and the margin of the file's own task, except those that settings give."""
    given = {setting.partition("=")[0].strip() for setting in settings}
    for section, key in (("data", "select_by"), ("expect", "margin_over_majority")):
        if f"{section}.{key}" not in given and section in values:
            values[section].pop(key, None)


def _replace_data(values: dict[str, Any], source: str) -> None:
    section = values.setdefault("data", {})
    for specific_key in (
        "text",
        "text_pair",
        "label",
        "prompt",
        "completion",
        "references",
        "messages",
        "test_source",
        "test_config",
        "test_template",
        "config",
        "revision",
        "leakage_limit",
        "token_lengths",
        "classes",
    ):
        section.pop(specific_key, None)
    section.setdefault("sizes", "at_most")
    section["source"] = source


def _data_note(recipe: Recipe) -> str:
    data = recipe.data
    sizes = f"{data.train}/{data.validation}/{data.test}"
    meaning = "upper limits" if data.sizes == "at_most" else "exact"
    note = (
        f"data replaced by {data.source!r}; the recipe's train/validation/test sizes ({sizes}) are "
        f"{meaning}"
    )
    if data.test_split != "test":
        note += f"; test is taken from its {data.test_split} split, if it has one"
    return note


def _replace_model(values: dict[str, Any], source: str) -> None:
    section = values.setdefault("model", {})
    for specific_key in ("revision", "trust_remote_code"):
        section.pop(specific_key, None)
    section["source"] = source


def _make_sections(values: dict[str, Any], where: str) -> None:
    """Write `methods = "all"`, `methods = ["lora"]` and `methods.include = ...` as sections.

    The section `all` stands for every method until the registry is asked (`with_methods`).
    """
    methods = values.get("methods")
    sections = dict(methods) if isinstance(methods, dict) else {"include": methods}
    include = sections.get("include", {})
    if isinstance(include, dict) or methods is None:
        return  # sections alone, or a mistake that `build` will name
    del sections["include"]
    names = [include] if isinstance(include, str) else include
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(
            f'{where}: methods = {include!r} should be "all", a list of names such as '
            f'["NAME", ...], or sections such as [methods.NAME].',
            setting="methods",
        )
    values["methods"] = {**{name: {} for name in names}, **sections}


def _set_weights(values: dict[str, Any], weights: str) -> None:
    allowed = get_args(get_type_hints(ModelSpec)["weights"])
    if weights not in allowed:
        raise OptionError(unknown("weights", weights, allowed), setting="model.weights")
    values.setdefault("model", {})["weights"] = weights


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Set `KEY=VALUE` in `values`.

    The key is a dotted TOML path. The value is TOML; a bare word is a string. `data.task` is
    another name of `task`.
    """
    key, equals, text = setting.partition("=")
    path = [part.strip() for part in key.split(".")]
    path = path[1:] if path == ["data", "task"] else path
    if not equals or not all(path):
        raise OptionError(
            f"setting {setting!r} should have the form KEY=VALUE, for example budget.epochs=2."
        )
    section = values
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise OptionError(f"setting {setting!r}: {part!r} is a value, not a section.")
    section[path[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, or too many digits or brackets
        return text
    return parsed["value"] if list(parsed) == ["value"] else text
