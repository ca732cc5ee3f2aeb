"""From records back to the command that makes them anew: `pytest benchmarks` with what differs from the shipped recipe."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.cells import cells_of, fitting_engine
from peft_methods.errors import OptionError
from peft_methods.methods import METHODS
from peft_methods.recipe import Recipe, load_recipe, shipped_recipes
from peft_methods.records import Record
from peft_methods.report.shown import is_folder, source_name

BARE = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]*")
WORDS_OF_TOML = ("true", "false", "inf", "nan")
Settings = Mapping[str, Any]
Option = tuple[str, str]  # without --peft-


@dataclass(frozen=True)
class Reproduction:
    """How one row is made anew: `command` for a shell, what must be at hand for it (`needs`).

    `needs_file` says that the command names the recipe's own TOML file (`recipe_file`), since no shipped one is near enough.
    """

    command: str
    needs: tuple[str, ...] = ()
    needs_file: bool = False


def reproduction(records: Sequence[Record]) -> Reproduction:
    """The command for all these records, cells of one method alike in all but their seed."""
    first = records[0]
    spec = _portable(first.cell)
    name, method = str(spec["recipe"]["name"]), str(spec["method"]["name"])
    changes = _from_shipped(spec) if name in shipped_recipes() else None
    options = [("recipe", name if changes is not None else f"{name}.toml"), ("method", method)]
    options += [
        ("seeds", _seeds(sorted({record.seed for record in records}))),
        *(changes or ()),
        *_engine(spec),
    ]
    command = [
        "pytest",
        "benchmarks",
        *(part for option, value in options for part in (f"--peft-{option}", value)),
    ]
    return Reproduction(shlex.join(command), tuple(_needs(first)), changes is None)


def _portable(spec: Settings) -> dict[str, Any]:
    """The spec with folders by their names: nobody else has their paths."""
    recipe, method = dict(spec["recipe"]), dict(spec["method"])
    for part in ("model", "data"):
        recipe[part] = {**recipe[part], "source": source_name(recipe[part]["source"])}
    if "sources" in method:
        method["sources"] = [source_name(source) for source in method["sources"]]
    return {**spec, "recipe": recipe, "method": method}


def _needs(record: Record) -> Iterator[str]:
    recipe, method = record.cell["recipe"], record.cell["method"]
    for what, source in (("model", recipe["model"]["source"]), ("data", recipe["data"]["source"])):
        if is_folder(source):
            yield f"{source_name(source)} is a local folder with the {what}: give the path of yours"
    folders = [source_name(source) for source in method.get("sources", ()) if is_folder(source)]
    if folders:
        yield f"{', '.join(folders)}: local folders with the sources' data"


def _seeds(seeds: Sequence[int]) -> str:
    """[0, 1, 2] -> '3'; [4, 7] -> '4,7'; [4] -> '4,'."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _engine(spec: Settings) -> list[Option]:
    return (
        []
        if spec["engine"] == fitting_engine("auto", spec["device"])
        else [("engine", spec["engine"])]
    )


def _from_shipped(spec: Settings) -> list[Option] | None:
    """Options that make this cell of the shipped recipe of that name; None where no options do."""
    recipe, name, method = spec["recipe"], spec["recipe"]["name"], spec["method"]["name"]
    try:
        shipped = load_recipe(name)
        places = {
            part: recipe[part]["source"]
            for part in ("model", "data")
            if recipe[part]["source"] != getattr(shipped, part).source
        }
        pointed = load_recipe(name, model=places.get("model"), data=places.get("data"))
        own = {"methods": {method: _section(spec)}}
        settings = [
            *_changed(_spec(pointed, next(iter(pointed.methods)))["recipe"], recipe),
            *_changed(_methods(pointed, method), own),
        ]
        made = _spec(
            load_recipe(name, settings, model=places.get("model"), data=places.get("data")), method
        )
    except OptionError:
        return None
    exact = _agree(recipe, made["recipe"]) and _agree(spec["method"], made["method"])
    return [*places.items(), *(("set", setting) for setting in settings)] if exact else None


def _spec(recipe: Recipe, method: str) -> dict[str, Any]:
    section = recipe.methods.get(method, {})
    created = METHODS.create(method, section, recipe.name, recipe)
    return cells_of(recipe, created, "cpu")[0].spec()


def _methods(recipe: Recipe, method: str) -> dict[str, Any]:
    """The recipe's settings of the method, defaults included; nothing where some have no value."""
    missing = METHODS.missing(method, recipe.methods.get(method, {}), recipe)
    return {"methods": {method: {} if missing else _section(_spec(recipe, method))}}


def _section(spec: Settings) -> dict[str, Any]:
    """The method's hyperparameters, as a recipe's section has them."""
    return {name: value for name, value in spec["method"].items() if name != "name"}


def _changed(before: Settings, after: Settings, path: str = "") -> list[str]:
    """`KEY=VALUE` for every value that is another; one that is missing now cannot be said so."""
    found = []
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict):
            found += _changed(old if isinstance(old, dict) else {}, value, f"{path}{name}.")
        elif value is not None and json.dumps(value) != json.dumps(old):
            found.append(f"{path}{name}={_written(value)}")
    return found


def _agree(then: Any, now: Any) -> bool:
    """Whether all that the record says is so; it may lack what later versions added."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(_agree(value, now.get(name)) for name, value in then.items())
    return json.dumps(then) == json.dumps(now)


def _written(value: Any) -> str:
    """A value as TOML, plain words without quotes."""
    if isinstance(value, str) and BARE.fullmatch(value) and value not in WORDS_OF_TOML:
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def recipe_file(records: Sequence[Record]) -> str:
    """The TOML recipe that these records are cells of, one a method; folders by their names."""
    spec = _portable(records[0].cell)
    recipe = spec["recipe"]
    lines = [f"{name} = {_toml(recipe[name])}" for name in ("name", "gpu") if name in recipe]
    sections = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    sections |= {
        f"methods.{record.method_name}": _section(_portable(record.cell)) for record in records
    }
    for name, values in sections.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None),
        ]
    return "\n".join(lines) + "\n"
