"""The command line's `--peft-` options, read and checked once, at pytest's start."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.environment import find_device, usable_cores
from peft_methods.errors import OptionError

if TYPE_CHECKING:
    import pytest

    from peft_methods.job import Task
    from peft_methods.recommending import Limits

DEFAULT_RECIPE, DEFAULT_GPU_RECIPE = "embedded", "imdb_roberta"
ALL_RECIPES = "all"


@dataclass(frozen=True)
class Options:
    """What was asked for. Recipes are loaded when tests want them, or at once when an option speaks of them."""

    recipes: tuple[str, ...]
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    model: str | None
    weights: str | None
    data: str | None
    dry_run: bool
    results: Path
    workers: int | None
    save_models: Path | None
    markdown: Path | None
    csv: Path | None
    limits: Limits
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def tasks(self) -> list[Task]:
        """Every recipe and method to benchmark. Raises `OptionError`."""
        from peft_methods.job import tasks_of
        from peft_methods.recipe import load_recipe

        if "tasks" not in self._cache:
            recipes = [load_recipe(name, self.settings, model=self.model, data=self.data, weights=self.weights) for name in self.recipes]
            self._cache["tasks"] = tasks_of(recipes, self.methods, find_device())
        tasks: list[Task] = self._cache["tasks"]
        return tasks


def add_options(parser: pytest.Parser) -> None:
    """Register every `--peft-` option."""
    group = parser.getgroup("peft-methods", "fine-tuning methods compared")
    lists: dict[str, Any] = {"action": "append", "default": [], "metavar": "A,B"}
    group.addoption(
        "--peft-recipe",
        help="recipes by name or TOML path; all: every shipped one (default: embedded; with -m gpu imdb_roberta too)",
        **lists,
    )
    group.addoption("--peft-method", help="only these methods of the recipe", **lists)
    group.addoption("--peft-seeds", metavar="N|A,B", help="3 means seeds 0, 1, 2; 4,7 means those two")
    group.addoption("--peft-set", action="append", default=[], metavar="KEY=VALUE", help="set a recipe field, e.g. budget.epochs=2")
    group.addoption("--peft-model", metavar="SOURCE", help="another model: a hub id, a local folder, or embedded:NAME")
    group.addoption("--peft-weights", metavar="KIND", help="pretrained, or random: the model from its config alone, to see what it costs")
    group.addoption(
        "--peft-data", metavar="SOURCE", help="other data: a hub id, a folder of Parquet/CSV/JSON-lines files, a saved data set"
    )
    group.addoption("--peft-dry-run", action="store_true", help="print the cells and how long they may take; train nothing")
    group.addoption("--peft-results", metavar="DIR", default=".peft/results", help="where records go (default: %(default)s)")
    group.addoption("--peft-workers", metavar="N", help="cells side by side (default: 2 on a CPU, each with half the cores; 1 on a GPU)")
    group.addoption("--peft-save-models", metavar="DIR", help="keep each cell's best model here")
    group.addoption("--peft-markdown", metavar="FILE", help="write the table as Markdown")
    group.addoption("--peft-csv", metavar="FILE", help="write every metric, a row a method, as CSV")
    group.addoption("--peft-budget", metavar="LIMITS", help="recommend only what keeps to these, e.g. memory=8GB,time=10min")


def read_options(config: pytest.Config) -> Options:
    """Options from pytest's configuration. Raises `OptionError` with one line for the first that is wrong."""
    option = config.option
    recipes, methods = _names(option.peft_recipe, "--peft-recipe"), _names(option.peft_method, "--peft-method")
    settings = [*option.peft_set]
    if option.peft_seeds is not None:
        settings.append(f"budget.seeds={parse_seeds(option.peft_seeds)}")
    options = Options(
        recipes=_every_shipped(recipes) or default_recipes(option.markexpr),
        methods=methods,
        settings=tuple(settings),
        model=option.peft_model,
        weights=option.peft_weights,
        data=option.peft_data,
        dry_run=option.peft_dry_run,
        results=Path(option.peft_results),
        workers=_workers(option.peft_workers),
        save_models=_folder(option.peft_save_models, "--peft-save-models"),
        markdown=_file(option.peft_markdown, "--peft-markdown"),
        csv=_file(option.peft_csv, "--peft-csv"),
        limits=_limits(option.peft_budget),
    )
    if recipes or methods or settings or option.peft_model or option.peft_data or option.peft_weights is not None:
        options.tasks()
    return options


def default_recipes(markexpr: str) -> tuple[str, ...]:
    """What runs when no recipe is named: the embedded one, and with `-m gpu` the one for GPUs too."""
    return (DEFAULT_RECIPE, DEFAULT_GPU_RECIPE) if "gpu" in markexpr else (DEFAULT_RECIPE,)


def _every_shipped(names: tuple[str, ...]) -> tuple[str, ...]:
    """`all` among the names stands for every recipe that comes with the project."""
    from peft_methods.recipe import shipped_recipes

    expanded = [one for name in names for one in (shipped_recipes() if name == ALL_RECIPES else [name])]
    return tuple(dict.fromkeys(expanded))


def _names(values: list[str], option: str) -> tuple[str, ...]:
    names = [name.strip() for value in values for name in value.split(",")]
    if "" in names:
        raise OptionError(f"{option} {','.join(values)!r} has an empty name; write a,b.")
    return tuple(dict.fromkeys(names))


def parse_seeds(text: str) -> int | list[int]:
    """'3' -> 3 (seeds 0, 1, 2); '4,7' or '4,' -> those. Raises `OptionError`."""
    parts = text.split(",")
    numbers = [part.strip() for part in parts if part.strip()]
    if not numbers or not all(part.isascii() and part.isdecimal() for part in numbers):
        raise OptionError(f"--peft-seeds {text!r} should be a number of seeds (3 means 0, 1, 2) or a list of them (4,7).")
    seeds = [int(part) for part in numbers]
    if len(parts) == 1:
        if seeds[0] == 0:
            raise OptionError("--peft-seeds 0 would train nothing; give at least 1, or '0,' for seed 0 alone.")
        return seeds[0]
    return seeds


def _workers(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= usable_cores()):
        raise OptionError(f"--peft-workers {text!r} should be a whole number from 1 to {usable_cores()}, the cores there are.")
    if int(text) > 1 and find_device() != "cpu":
        raise OptionError(f"--peft-workers {text}: on a GPU one cell runs at a time; two would measure each other.")
    return int(text)


def _limits(text: str | None) -> Limits:
    if text is None:
        return {}
    from peft_methods.recommending import parse_limits

    return parse_limits(text)


def _folder(value: str | None, option: str) -> Path | None:
    """A folder that exists from now on and can be written, so that nothing is lost at the end for want of one."""
    if value is None:
        return None
    try:
        Path(value).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=value):
            pass
    except FileExistsError:
        raise OptionError(f"{option} {value!r} is a file; give a folder.") from None
    except OSError as error:
        raise OptionError(f"{option} {value!r} cannot be written to: {error.strerror}.") from None
    return Path(value)


def _file(value: str | None, option: str) -> Path | None:
    if value is None:
        return None
    path = Path(value)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OptionError(f"{option} {value!r}: {'that is a folder' if path.is_dir() else f'the folder {path.parent} does not exist'}.")
    return path
