"""The `--peft-` options, read and checked once when pytest starts."""

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
    from peft_methods.job import ExperimentOptions
    from peft_methods.recommending import Limits
    from peft_methods.tasks import Task

DEFAULT_RECIPE, DEFAULT_GPU_RECIPE = "embedded", "imdb_roberta"
ALL_RECIPES = "all"
LIST: dict[str, Any] = {"action": "append", "default": [], "metavar": "A,B"}


@dataclass(frozen=True)
class Options:
    """The values of all options.

    Recipes are loaded when tests need them, or at once if an option concerns them.
    """

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

    def experiment(self) -> ExperimentOptions:
        """Return the options of the experiment."""
        from peft_methods.job import ExperimentOptions

        return ExperimentOptions(
            results=self.results,
            save_models=self.save_models,
            workers=self.workers,
            trials=self.trials,
            fresh=self.fresh,
            timeout=self.timeout,
            retries=self.retries,
            checkpoint=self.checkpoint,
            trackers=self.trackers,
        )

    def tasks(self) -> list[Task]:
        """Return every recipe and method to benchmark. Raises `OptionError`."""
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
    group = parser.getgroup("peft-methods", "comparison of fine-tuning methods")
    _add_choices(group)
    _add_execution(group)
    _add_training(group)
    _add_output(group)
    _add_regression_check(group)


def _add_choices(group: pytest.OptionGroup) -> None:
    """Register the options for what is compared."""
    group.addoption(
        "--peft-recipe",
        help="recipes by name or TOML path; all: every shipped one "
        "(default: embedded; with -m gpu imdb_roberta too)",
        **LIST,
    )
    group.addoption("--peft-method", help="only these methods of the recipe", **LIST)
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
        help="pretrained, or random: build the model from its config alone, to measure its cost",
    )
    group.addoption(
        "--peft-data",
        metavar="SOURCE",
        help="other data: a hub id, a folder of Parquet/CSV/JSON-lines files, a saved data set",
    )
    group.addoption(
        "--peft-trust-remote-code",
        action="store_true",
        help="run Python code that comes with a model, if the recipe allows it too",
    )


def _add_execution(group: pytest.OptionGroup) -> None:
    """Register the options for how runs are executed."""
    group.addoption(
        "--peft-dry-run",
        action="store_true",
        help="print the runs and how long they may take; train nothing",
    )
    group.addoption(
        "--peft-results",
        metavar="DIR",
        default=".peft/results",
        help="folder for records (default: %(default)s)",
    )
    group.addoption(
        "--peft-resume",
        action="store_true",
        help="train only runs without a record from an earlier session (the default)",
    )
    group.addoption(
        "--peft-fresh",
        action="store_true",
        help="train everything again; earlier records stay until new ones replace them",
    )
    group.addoption(
        "--peft-workers",
        metavar="N",
        help="runs at a time (default: 2 on a CPU, each with half the cores; 1 on a GPU)",
    )
    group.addoption(
        "--peft-timeout",
        metavar="TIME",
        help="end a run that takes longer, e.g. 90s, 10min, 2h (default: no limit)",
    )
    group.addoption(
        "--peft-retries",
        metavar="N",
        default="1",
        help="retry a run whose process was killed or whose GPU failed (default: 1)",
    )


def _add_training(group: pytest.OptionGroup) -> None:
    """Register the options for how each run trains."""
    group.addoption(
        "--peft-engine",
        metavar="NAME",
        default="auto",
        help="auto, stock (the Hugging Face Trainer) or graphed (its steps as CUDA graphs)",
    )
    group.addoption(
        "--peft-tune",
        metavar="N",
        help="first tune every method by N trials on validation data (needs the extra `tune`)",
    )
    group.addoption("--peft-save-models", metavar="DIR", help="keep each run's best model here")
    group.addoption(
        "--peft-checkpoint",
        action="store_true",
        help="save every epoch's state, so that a killed run resumes from there",
    )
    group.addoption(
        "--peft-deterministic",
        action="store_true",
        help="on a GPU too, use only operations that give identical bits every time",
    )


def _add_output(group: pytest.OptionGroup) -> None:
    """Register the options for what is written, and where."""
    group.addoption("--peft-rules", action="store_true", help="list the validity rules and exit")
    group.addoption(
        "--peft-track",
        help="log to these trackers: tensorboard, wandb, trackio, mlflow, "
        "or another one that the Hugging Face Trainer supports",
        **LIST,
    )
    group.addoption(
        "--peft-silence",
        metavar="V105,V301",
        action="append",
        default=[],
        help="skip these rules; the table lists them",
    )
    group.addoption("--peft-markdown", metavar="FILE", help="write the table as Markdown")
    group.addoption(
        "--peft-csv", metavar="FILE", help="write every metric as CSV, one row per method"
    )
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


def _add_regression_check(group: pytest.OptionGroup) -> None:
    """Register the options for baselines, and for the constraints on recommendations."""
    group.addoption(
        "--peft-baseline",
        metavar="FILE|auto",
        help="fail if a method is worse than this baseline; auto: this device's stored file",
    )
    group.addoption(
        "--peft-fail",
        action="append",
        default=[],
        metavar="METRIC:TOLERANCE",
        help="how much worse it may be "
        "(default: accuracy:1pp, peak_memory_bytes:5%%, train_seconds:10%%)",
    )
    group.addoption(
        "--peft-allow-missing",
        action="store_true",
        help="allow a method to be missing from the session or the baseline",
    )
    group.addoption(
        "--peft-allow-reused",
        action="store_true",
        help="check records that were reused from an earlier session too",
    )
    group.addoption(
        "--peft-save-baseline",
        metavar="FILE|auto",
        help="write this session's results as a baseline if nothing failed",
    )
    group.addoption(
        "--peft-budget",
        metavar="LIMITS",
        help="recommend only methods within these limits, e.g. memory=8GB,time=10min",
    )


def read_options(config: pytest.Config) -> Options:
    """Read the options from pytest's configuration. Raises `OptionError` for the first bad one."""
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
        timeout=parse_timeout(option.peft_timeout, "--peft-timeout "),
        retries=parse_retries(option.peft_retries, "--peft-retries "),
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
    recipe_options = (
        recipes,
        methods,
        settings,
        options.trials,
        option.peft_model,
        option.peft_data,
        option.peft_trust_remote_code,
    )
    if any(recipe_options) or options.engine != "auto" or option.peft_weights is not None:
        options.tasks()
    return replace(
        options,
        gate=_gate(option, options),
        saved_baselines=_saved_baselines(option.peft_save_baseline, options),
    )


def default_recipes(markexpr: str) -> tuple[str, ...]:
    """Return the recipes to run when none is named; `-m gpu` adds one for GPUs."""
    return (DEFAULT_RECIPE, DEFAULT_GPU_RECIPE) if "gpu" in markexpr else (DEFAULT_RECIPE,)


def _every_shipped(names: tuple[str, ...]) -> tuple[str, ...]:
    """Replace the name `all` by every recipe that comes with the project."""
    from peft_methods.recipe import shipped_recipes

    expanded = [
        one for name in names for one in (shipped_recipes() if name == ALL_RECIPES else [name])
    ]
    return tuple(dict.fromkeys(expanded))


def _gate(option: Any, options: Options) -> Gate | None:
    """Build the regression check. Its baselines are read before anything is trained."""
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
                f"--peft-{unused.replace('_', '-')} needs a baseline to compare with: "
                "add --peft-baseline FILE|auto."
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
    """Return the path to write each recipe's baseline to."""
    if value is None:
        return {}
    from peft_methods.baseline import AUTO

    if value == AUTO:
        return _auto_baselines(options)
    path = values.file_of(value, "--peft-save-baseline")
    return {task.recipe.name: path for task in options.tasks() if path is not None}


def _auto_baselines(options: Options) -> dict[str, Path]:
    """Return the stored baseline of every recipe that can run on this device."""
    from peft_methods.baseline import auto_path
    from peft_methods.recipe import find_recipe

    device, recipes = device_name(), {task.recipe.name: task.recipe for task in options.tasks()}
    return {
        recipe.name: auto_path(find_recipe(file), recipe, device)
        for file, recipe in zip(options.recipes, recipes.values(), strict=True)
        if not (recipe.gpu and device == "cpu")
    }
