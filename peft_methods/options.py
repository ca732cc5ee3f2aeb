"""The command line's `--peft-` options, read and checked once, at pytest's start."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods import option_values as values
from peft_methods.environment import device_name, find_device
from peft_methods.errors import OptionError
from peft_methods.execution.limits import parse_retries, parse_timeout

if TYPE_CHECKING:
    import pytest

    from peft_methods.gate import Gate
    from peft_methods.recommending import Limits
    from peft_methods.tasks import Task

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
    timeout: float | None
    retries: int
    save_models: Path | None
    checkpoint: bool
    deterministic: bool
    silenced: tuple[str, ...]
    markdown: Path | None
    csv: Path | None
    report: Path | None
    paper: Path | None
    limits: Limits
    fresh: bool = False
    trackers: tuple[str, ...] = ()
    gate: Gate | None = None
    saved_baselines: dict[str, Path] = field(default_factory=dict)
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def tasks(self) -> list[Task]:
        """Every recipe and method to benchmark. Raises `OptionError`."""
        from peft_methods.recipe import load_recipe
        from peft_methods.tasks import tasks_of

        if "tasks" not in self._cache:
            recipes = [
                load_recipe(
                    name, self.settings, model=self.model, data=self.data, weights=self.weights
                )
                for name in self.recipes
            ]
            if self.trials:
                from peft_methods.tuning import check_possible

                check_possible(recipes)
            self._cache["tasks"] = tasks_of(
                recipes,
                self.methods,
                find_device(),
                self.engine,
                deterministic=self.deterministic,
                trust_remote_code=self.trust_remote_code,
            )
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
    group.addoption(
        "--peft-seeds", metavar="N|A,B", help="3 means seeds 0, 1, 2; 4,7 means those two"
    )
    group.addoption(
        "--peft-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a recipe field, e.g. budget.epochs=2",
    )
    group.addoption(
        "--peft-model",
        metavar="SOURCE",
        help="another model: a hub id, a local folder, or embedded:NAME",
    )
    group.addoption(
        "--peft-weights",
        metavar="KIND",
        help="pretrained, or random: the model from its config alone, to see what it costs",
    )
    group.addoption(
        "--peft-data",
        metavar="SOURCE",
        help="other data: a hub id, a folder of Parquet/CSV/JSON-lines files, a saved data set",
    )
    group.addoption(
        "--peft-trust-remote-code",
        action="store_true",
        help="run Python code that comes with a model whose recipe wants that too",
    )
    group.addoption(
        "--peft-dry-run",
        action="store_true",
        help="print the cells and how long they may take; train nothing",
    )
    group.addoption(
        "--peft-results",
        metavar="DIR",
        default=".peft/results",
        help="where records go (default: %(default)s)",
    )
    group.addoption(
        "--peft-resume",
        action="store_true",
        help="train only what no earlier run on these results has trained (the default)",
    )
    group.addoption(
        "--peft-fresh",
        action="store_true",
        help="train everything again; earlier records stay until new ones replace them",
    )
    group.addoption(
        "--peft-workers",
        metavar="N",
        help="cells side by side (default: 2 on a CPU, each with half the cores; 1 on a GPU)",
    )
    group.addoption(
        "--peft-timeout",
        metavar="TIME",
        help="end a cell that takes longer, e.g. 90s, 10min, 2h (default: none does)",
    )
    group.addoption(
        "--peft-retries",
        metavar="N",
        default="1",
        help="try a cell again whose process was killed or whose GPU failed (default: 1)",
    )
    group.addoption(
        "--peft-engine",
        metavar="NAME",
        default="auto",
        help="auto, stock (the Trainer) or graphed (its steps as CUDA graphs)",
    )
    group.addoption(
        "--peft-tune",
        metavar="N",
        help="first tune every method by N trials on validation data (needs the extra `tune`)",
    )
    group.addoption("--peft-save-models", metavar="DIR", help="keep each cell's best model here")
    group.addoption(
        "--peft-checkpoint",
        action="store_true",
        help="save every epoch's state, so that a killed cell goes on from there",
    )
    group.addoption(
        "--peft-deterministic",
        action="store_true",
        help="on a GPU too, only operations that give the same bits every time",
    )
    group.addoption("--peft-rules", action="store_true", help="list the validity rules and exit")
    group.addoption(
        "--peft-track",
        help="log to these trackers: tensorboard, wandb, trackio, mlflow, or another one of the Trainer's",
        **lists,
    )
    group.addoption(
        "--peft-silence",
        metavar="V105,V301",
        action="append",
        default=[],
        help="leave out these rules; the table says so",
    )
    group.addoption("--peft-markdown", metavar="FILE", help="write the table as Markdown")
    group.addoption("--peft-csv", metavar="FILE", help="write every metric, a row a method, as CSV")
    group.addoption(
        "--peft-report",
        metavar="DIR",
        help="write DIR/report.html, with charts (needs the extra `report`)",
    )
    group.addoption(
        "--peft-paper",
        metavar="FILE.pdf",
        help="write the comparison as a two-column paper (needs the extra `paper`)",
    )
    group.addoption(
        "--peft-baseline",
        metavar="FILE|auto",
        help="fail where a method is worse than here; auto: this device's stored file",
    )
    group.addoption(
        "--peft-fail",
        action="append",
        default=[],
        metavar="METRIC:TOLERANCE",
        help="how much worse it may be (default: accuracy:1pp, peak_memory_bytes:5%%, train_seconds:10%%)",
    )
    group.addoption(
        "--peft-allow-missing",
        action="store_true",
        help="a method may be missing from the run or the baseline",
    )
    group.addoption(
        "--peft-allow-reused",
        action="store_true",
        help="judge records that were reused from an earlier run too",
    )
    group.addoption(
        "--peft-save-baseline",
        metavar="FILE|auto",
        help="write this run as a baseline if nothing failed",
    )
    group.addoption(
        "--peft-budget",
        metavar="LIMITS",
        help="recommend only what keeps to these, e.g. memory=8GB,time=10min",
    )


def read_options(config: pytest.Config) -> Options:
    """Options from pytest's configuration. Raises `OptionError` with one line for the first that is wrong."""
    option = config.option
    recipes, methods = (
        values.names_of(option.peft_recipe, "--peft-recipe"),
        values.names_of(option.peft_method, "--peft-method"),
    )
    settings = [*option.peft_set]
    if option.peft_seeds is not None:
        settings.append(f"budget.seeds={values.parse_seeds(option.peft_seeds)}")
    options = Options(
        recipes=_every_shipped(recipes) or default_recipes(option.markexpr),
        methods=methods,
        settings=tuple(settings),
        model=option.peft_model,
        weights=option.peft_weights,
        data=option.peft_data,
        trust_remote_code=option.peft_trust_remote_code,
        dry_run=option.peft_dry_run,
        results=values.path_of(option.peft_results, "--peft-results"),
        engine=option.peft_engine,
        trials=values.trials_of(option.peft_tune),
        workers=values.workers_of(option.peft_workers),
        timeout=parse_timeout(option.peft_timeout),
        retries=parse_retries(option.peft_retries),
        save_models=values.folder_of(option.peft_save_models, "--peft-save-models"),
        checkpoint=option.peft_checkpoint,
        deterministic=option.peft_deterministic,
        silenced=values.silenced_of(option.peft_silence),
        markdown=values.file_of(option.peft_markdown, "--peft-markdown"),
        csv=values.file_of(option.peft_csv, "--peft-csv"),
        report=values.report_of(option.peft_report),
        paper=values.paper_of(option.peft_paper),
        limits=values.limits_of(option.peft_budget),
        fresh=values.fresh_of(option),
        trackers=values.trackers_of(option.peft_track),
    )
    of_recipes = (
        recipes,
        methods,
        settings,
        options.trials,
        option.peft_model,
        option.peft_data,
        option.peft_trust_remote_code,
    )
    if any(of_recipes) or options.engine != "auto" or option.peft_weights is not None:
        options.tasks()
    return replace(
        options,
        gate=_gate(option, options),
        saved_baselines=_saved_baselines(option.peft_save_baseline, options),
    )


def default_recipes(markexpr: str) -> tuple[str, ...]:
    """What runs when no recipe is named: the embedded one, and with `-m gpu` the one for GPUs too."""
    return (DEFAULT_RECIPE, DEFAULT_GPU_RECIPE) if "gpu" in markexpr else (DEFAULT_RECIPE,)


def _every_shipped(names: tuple[str, ...]) -> tuple[str, ...]:
    """`all` among the names stands for every recipe that comes with the project."""
    from peft_methods.recipe import shipped_recipes

    expanded = [
        one for name in names for one in (shipped_recipes() if name == ALL_RECIPES else [name])
    ]
    return tuple(dict.fromkeys(expanded))


def _gate(option: Any, options: Options) -> Gate | None:
    """The gate that was asked for, its files read and checked before anything is trained."""
    if option.peft_baseline is None:
        unused = next(
            (
                name
                for name in ("fail", "allow_missing", "allow_reused")
                if getattr(option, f"peft_{name}")
            ),
            None,
        )
        if unused is not None:
            raise OptionError(
                f"--peft-{unused.replace('_', '-')} says how to judge and nothing is judged: add --peft-baseline FILE|auto."
            )
        return None
    from peft_methods.baseline import AUTO, read_baseline
    from peft_methods.gate import Gate
    from peft_methods.tolerances import parse_tolerances

    tolerances = parse_tolerances(option.peft_fail) or None
    if option.peft_baseline == AUTO:
        baselines = {
            recipe: read_baseline(path) for recipe, path in _auto_baselines(options).items()
        }
    else:
        baseline = read_baseline(values.path_of(option.peft_baseline, "--peft-baseline"))
        baselines = dict.fromkeys((task.recipe.name for task in options.tasks()), baseline)
    return Gate(baselines, tolerances, option.peft_allow_missing, option.peft_allow_reused)


def _saved_baselines(value: str | None, options: Options) -> dict[str, Path]:
    """Where each recipe's baseline is to be written."""
    if value is None:
        return {}
    from peft_methods.baseline import AUTO

    if value == AUTO:
        return _auto_baselines(options)
    path = values.file_of(value, "--peft-save-baseline")
    return {task.recipe.name: path for task in options.tasks() if path is not None}


def _auto_baselines(options: Options) -> dict[str, Path]:
    """The stored file of every recipe that can run on this device."""
    from peft_methods.baseline import auto_path
    from peft_methods.recipe import find_recipe

    device, recipes = device_name(), {task.recipe.name: task.recipe for task in options.tasks()}
    return {
        recipe.name: auto_path(find_recipe(file), recipe, device)
        for file, recipe in zip(options.recipes, recipes.values(), strict=True)
        if not (recipe.gpu and device == "cpu")
    }
