"""The options that reproduce records: those that change the shipped recipe into theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.curve import curve_recipes
from peft_methods.recipes.loading import load_recipe, shipped_recipes
from peft_methods.recipes.schema import DEFAULT_TASK, Recipe
from peft_methods.report.formatting import is_folder, source_name
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.tasks.registry import with_task
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import OptionError

BARE = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]*")
SOURCES = "sources"  # a method's setting with the data sets of its prerequisite runs
TOML_KEYWORDS = ("true", "false", "inf", "nan")
Settings = Mapping[str, Any]
Option = tuple[str, str]  # name without the command line's prefix, value
CommandFormat = Callable[[Sequence[Option]], str]  # the text of the command with these options


@dataclass(frozen=True)
class Reproduction:
    """How to reproduce one row: the options of the command, and the local folders it needs.

    With `needs_file` the options refer to the recipe's own TOML file (see `recipe_file`), because
    options alone cannot turn a shipped recipe into this one.
    """

    options: tuple[Option, ...]
    needs: tuple[str, ...] = ()
    needs_file: bool = False


def reproduction(records: Sequence[Record]) -> Reproduction:
    """Find the options for these records: runs of one method that differ in their seed only."""
    first = records[0]
    spec = _portable(first.spec)
    recipe, method = spec.recipe, spec.method.name
    shipped = _shipped_name(recipe)
    changes = _from_shipped(spec) if shipped in shipped_recipes() else None
    file = f"{recipe.name}.toml"
    options = [("recipe", shipped if changes is not None else file), ("method", method)]
    options += [("curve", str(size)) for size in _sizes(recipe) if changes is not None]
    options += [
        ("seeds", _seeds(sorted({record.seed for record in records}))),
        *(changes or ()),
        *_engine(spec),
    ]
    return Reproduction(tuple(options), tuple(_needs(first)), changes is None)


def _shipped_name(recipe: Recipe) -> str:
    """Return the name of the recipe that a size of a curve, or one of several models, is of."""
    return recipe.models_of or recipe.curve_of or recipe.name


def _sizes(recipe: Recipe) -> tuple[int, ...]:
    """Return the size of a learning curve that this recipe is; nothing for an ordinary recipe."""
    return (recipe.data.train_subset or 0,) if recipe.curve_of else ()


def _portable(spec: RunSpec) -> RunSpec:
    """Copy the spec with folder names instead of paths, which are valid on one machine only."""
    recipe, method = spec.recipe, spec.method
    model = replace(recipe.model, source=source_name(recipe.model.source))
    data = replace(recipe.data, source=source_name(recipe.data.source))
    if sources := _sources(method):
        changed: dict[str, Any] = {SOURCES: tuple(map(source_name, sources))}
        method = replace(method, **changed)
    return replace(spec, recipe=replace(recipe, model=model, data=data), method=method)


def _sources(method: Method) -> tuple[str, ...]:
    """Return the data sets of a method's prerequisite runs, if it has a setting for them."""
    return tuple(getattr(method, SOURCES, ()))


def _needs(record: Record) -> Iterator[str]:
    recipe, method = record.spec.recipe, record.spec.method
    for part, source in (("model", recipe.model.source), ("data", recipe.data.source)):
        if is_folder(source):
            name = source_name(source)
            yield f"{name} is a local folder with the {part}: replace it by the path of your copy"
    folders = [source_name(source) for source in _sources(method) if is_folder(source)]
    if folders:
        yield f"{', '.join(folders)}: local folders with the data of the prerequisite runs"


def _seeds(seeds: Sequence[int]) -> str:
    """Format seeds as an option value: [0, 1, 2] -> '3'; [4, 7] -> '4,7'; [4] -> '4,'."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _engine(spec: RunSpec) -> list[Option]:
    is_default = spec.engine == choose_engine("auto", spec.device, spec.recipe.budget.gpus)
    return [] if is_default else [("engine", spec.engine)]


def _from_shipped(spec: RunSpec) -> list[Option] | None:
    """Find options that turn the shipped recipe of this name into this spec.

    Returns None if no options do.
    """
    recipe, method = spec.recipe, spec.method.name
    name, sizes = _shipped_name(recipe), _sizes(recipe)
    requested = spec.recipe_settings()
    try:
        shipped = load_recipe(name)
        replaced = {
            part: source
            for part, source, shipped_source in (
                ("model", recipe.model.source, shipped.model.source),
                ("data", recipe.data.source, shipped.data.source),
            )
            if source != shipped_source
        }
        model, data = replaced.get("model"), replaced.get("data")
        (base,) = curve_recipes(_completed(name, (), model, data), sizes)
        hyperparameters = {"methods": {method: spec.method_settings()}}
        before = _spec(base, next(iter(base.methods))).recipe_settings()
        if recipe.curve_of:  # the option for the curve names the sizes
            before = {**before, "name": recipe.name, "curve_of": recipe.curve_of}
        settings = [
            *([f"name={recipe.curve_of}"] if recipe.curve_of and recipe.models_of else []),
            *_changed(before, requested),
            *_changed(_methods(base, method), hyperparameters),
        ]
        (again,) = curve_recipes(_completed(name, settings, model, data), sizes)
        result = _spec(again, method)
    except OptionError:
        return None
    exact = _agree(requested, result.recipe_settings()) and _agree(
        spec.method_settings(), result.method_settings()
    )
    return [*replaced.items(), *(("set", setting) for setting in settings)] if exact else None


def _completed(name: str, settings: Sequence[str], model: str | None, data: str | None) -> Recipe:
    """Load a shipped recipe as it is run: with its task's metric where it names none."""
    return with_task(load_recipe(name, settings, model=model, data=data))


def _spec(recipe: Recipe, method: str) -> RunSpec:
    section = recipe.methods.get(method, {})
    created = METHODS.create(method, section, recipe.name, recipe)
    return run_specs(recipe, created, "cpu")[0]


def _methods(recipe: Recipe, method: str) -> dict[str, Any]:
    """The recipe's settings of the method, defaults included; nothing where some have no value."""
    missing = METHODS.missing(method, recipe.methods.get(method, {}), recipe)
    return {"methods": {method: {} if missing else _spec(recipe, method).method_settings()}}


def _changed(before: Settings, after: Settings, path: str = "") -> list[str]:
    """List `KEY=VALUE` for every changed setting. A removed setting cannot be expressed."""
    found = []
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict):
            found += _changed(old if isinstance(old, dict) else {}, value, f"{path}{name}.")
        elif value is not None and json.dumps(value) != json.dumps(old):
            found.append(f"{path}{name}={_override(value)}")
    return found


def _agree(then: Any, now: Any) -> bool:
    """Whether every recorded value equals the current one. The record may lack newer settings."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(_agree(value, now.get(name)) for name, value in then.items())
    return json.dumps(then) == json.dumps(now)


def _override(value: Any) -> str:
    """Format the value of an override: TOML, except that plain words need no quotes."""
    if isinstance(value, str) and BARE.fullmatch(value) and value not in TOML_KEYWORDS:
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def recipe_file(records: Sequence[Record]) -> str:
    """Format the TOML recipe of these records (one record per method), with folder names only."""
    recipe = _portable(records[0].spec).recipe_settings()
    lines = [f"{name} = {_toml(recipe[name])}" for name in ("name", "gpu") if name in recipe]
    lines += [f"{key} = {_toml(recipe[key])}" for key in ("curve_of", "models_of") if recipe[key]]
    if recipe.get("task", DEFAULT_TASK) != DEFAULT_TASK:
        lines.append(f"task = {_toml(recipe['task'])}")
    sections = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    sections |= {
        f"methods.{record.method_name}": _portable(record.spec).method_settings()
        for record in records
    }
    for name, values in sections.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None),
        ]
    return "\n".join(lines) + "\n"
