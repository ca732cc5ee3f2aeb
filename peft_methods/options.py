"""The command line's `--peft-` options, read and checked once, at pytest's start."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.environment import device_name, find_device, usable_cores
from peft_methods.errors import OptionError, first_line

if TYPE_CHECKING:
    import pytest

    from peft_methods.gate import Gate
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
    trust_remote_code: bool
    dry_run: bool
    results: Path
    engine: str
    trials: int | None
    workers: int | None
    save_models: Path | None
    silenced: tuple[str, ...]
    markdown: Path | None
    csv: Path | None
    limits: Limits
    gate: Gate | None = None
    saved_baselines: dict[str, Path] = field(default_factory=dict)
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def tasks(self) -> list[Task]:
        """Every recipe and method to benchmark. Raises `OptionError`."""
        from peft_methods.job import tasks_of
        from peft_methods.recipe import load_recipe

        if "tasks" not in self._cache:
            recipes = [load_recipe(name, self.settings, model=self.model, data=self.data, weights=self.weights) for name in self.recipes]
            if self.trials:
                from peft_methods.tuning import check_possible

                check_possible(recipes)
            self._cache["tasks"] = tasks_of(recipes, self.methods, find_device(), self.engine, trust_remote_code=self.trust_remote_code)
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
    group.addoption(
        "--peft-trust-remote-code", action="store_true", help="run Python code that comes with a model whose recipe wants that too"
    )
    group.addoption("--peft-dry-run", action="store_true", help="print the cells and how long they may take; train nothing")
    group.addoption("--peft-results", metavar="DIR", default=".peft/results", help="where records go (default: %(default)s)")
    group.addoption("--peft-workers", metavar="N", help="cells side by side (default: 2 on a CPU, each with half the cores; 1 on a GPU)")
    group.addoption("--peft-engine", metavar="NAME", default="auto", help="auto, stock (the Trainer) or graphed (its steps as CUDA graphs)")
    group.addoption("--peft-tune", metavar="N", help="first tune every method by N trials on validation data (needs the extra `tune`)")
    group.addoption("--peft-save-models", metavar="DIR", help="keep each cell's best model here")
    group.addoption("--peft-rules", action="store_true", help="list the validity rules and exit")
    group.addoption("--peft-silence", metavar="V105,V301", action="append", default=[], help="leave out these rules; the table says so")
    group.addoption("--peft-markdown", metavar="FILE", help="write the table as Markdown")
    group.addoption("--peft-csv", metavar="FILE", help="write every metric, a row a method, as CSV")
    group.addoption("--peft-baseline", metavar="FILE|auto", help="fail where a method is worse than here; auto: this device's stored file")
    group.addoption(
        "--peft-fail",
        action="append",
        default=[],
        metavar="METRIC:TOLERANCE",
        help="how much worse it may be (default: accuracy:1pp, peak_memory_bytes:5%%, train_seconds:10%%)",
    )
    group.addoption("--peft-allow-missing", action="store_true", help="a method may be missing from the run or the baseline")
    group.addoption("--peft-allow-reused", action="store_true", help="judge records that were reused from an earlier run too")
    group.addoption("--peft-save-baseline", metavar="FILE|auto", help="write this run as a baseline if nothing failed")
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
        trust_remote_code=option.peft_trust_remote_code,
        dry_run=option.peft_dry_run,
        results=_path(option.peft_results, "--peft-results"),
        engine=option.peft_engine,
        trials=_trials(option.peft_tune),
        workers=_workers(option.peft_workers),
        save_models=_folder(option.peft_save_models, "--peft-save-models"),
        silenced=_silenced(option.peft_silence),
        markdown=_file(option.peft_markdown, "--peft-markdown"),
        csv=_file(option.peft_csv, "--peft-csv"),
        limits=_limits(option.peft_budget),
    )
    of_recipes = (recipes, methods, settings, options.trials, option.peft_model, option.peft_data, option.peft_trust_remote_code)
    if any(of_recipes) or options.engine != "auto" or option.peft_weights is not None:
        options.tasks()
    return replace(options, gate=_gate(option, options), saved_baselines=_saved_baselines(option.peft_save_baseline, options))


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
    if not numbers or not all(map(_is_whole, numbers)):
        raise OptionError(f"--peft-seeds {text!r} should be a number of seeds (3 means 0, 1, 2) or a list of them (4,7).")
    seeds = [int(part) for part in numbers]
    if len(parts) == 1:
        if seeds[0] == 0:
            raise OptionError("--peft-seeds 0 would train nothing; give at least 1, or '0,' for seed 0 alone.")
        return seeds[0]
    return seeds


def _is_whole(text: str) -> bool:
    """Whether it is a whole number from 0 up that could be meant."""
    return text.isascii() and text.isdecimal() and len(text) <= 10


def _trials(text: str | None) -> int | None:
    if text is None:
        return None
    if not (_is_whole(text) and int(text) >= 1):
        raise OptionError(f"--peft-tune {text!r} should be a whole number of trials a method, 1 or more.")
    return int(text)


def _workers(text: str | None) -> int | None:
    if text is None:
        return None
    if not (_is_whole(text) and 1 <= int(text) <= usable_cores()):
        raise OptionError(f"--peft-workers {text!r} should be a whole number from 1 to {usable_cores()}, the cores there are.")
    if int(text) > 1 and find_device() != "cpu":
        raise OptionError(f"--peft-workers {text}: on a GPU one cell runs at a time; two would measure each other.")
    return int(text)


def _silenced(values: list[str]) -> tuple[str, ...]:
    if not values:
        return ()
    from peft_methods.validity import silenced

    return silenced(",".join(values), "--peft-silence")


def _limits(text: str | None) -> Limits:
    if text is None:
        return {}
    from peft_methods.recommending import parse_limits

    return parse_limits(text)


def _gate(option: Any, options: Options) -> Gate | None:
    """The gate that was asked for, its files read and checked before anything is trained."""
    if option.peft_baseline is None:
        unused = next((name for name in ("fail", "allow_missing", "allow_reused") if getattr(option, f"peft_{name}")), None)
        if unused is not None:
            raise OptionError(f"--peft-{unused.replace('_', '-')} says how to judge and nothing is judged: add --peft-baseline FILE|auto.")
        return None
    from peft_methods.baseline import AUTO, read_baseline
    from peft_methods.gate import Gate
    from peft_methods.tolerances import parse_tolerances

    tolerances = parse_tolerances(option.peft_fail) or None
    if option.peft_baseline == AUTO:
        baselines = {recipe: read_baseline(path) for recipe, path in _auto_baselines(options).items()}
    else:
        baseline = read_baseline(_path(option.peft_baseline, "--peft-baseline"))
        baselines = dict.fromkeys((task.recipe.name for task in options.tasks()), baseline)
    return Gate(baselines, tolerances, option.peft_allow_missing, option.peft_allow_reused)


def _saved_baselines(value: str | None, options: Options) -> dict[str, Path]:
    """Where each recipe's baseline is to be written."""
    if value is None:
        return {}
    from peft_methods.baseline import AUTO

    if value == AUTO:
        return _auto_baselines(options)
    path = _file(value, "--peft-save-baseline")
    return {task.recipe.name: path for task in options.tasks() if path is not None}


def _auto_baselines(options: Options) -> dict[str, Path]:
    """The stored file of every recipe that can run on this device."""
    from peft_methods.baseline import auto_path
    from peft_methods.recipe import find_recipe

    device, recipes = device_name(), {task.recipe.name: task.recipe for task in options.tasks()}
    return {
        recipe.name: auto_path(find_recipe(file), recipe.name, device)
        for file, recipe in zip(options.recipes, recipes.values(), strict=True)
        if not (recipe.gpu and device == "cpu")
    }


def _path(value: str, option: str) -> Path:
    """What can be a path, whether there is something or not."""
    try:
        os.lstat(value)
    except (OSError, ValueError) as error:  # too long, a NUL, half a character
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            raise OptionError(f"{option} {value!r} cannot be a path ({first_line(error)}); give another.") from None
    return Path(value)


def _folder(value: str | None, option: str) -> Path | None:
    """A folder that exists from now on and can be written, so that nothing is lost at the end for want of one."""
    if value is None:
        return None
    path = _path(value, option)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=value):
            pass
    except FileExistsError:
        raise OptionError(f"{option} {value!r} is a file; give a folder.") from None
    except OSError as error:
        raise OptionError(f"{option} {value!r} cannot be written to: {error.strerror}.") from None
    return path


def _file(value: str | None, option: str) -> Path | None:
    if value is None:
        return None
    path = _path(value, option)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OptionError(f"{option} {value!r}: {'that is a folder' if path.is_dir() else f'the folder {path.parent} does not exist'}.")
    return path
