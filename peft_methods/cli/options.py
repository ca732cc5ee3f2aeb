"""All options of a session, read and checked once: by pytest at its start, or by `compare()`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.margin import MARGIN
from peft_methods.cli import parsing as values
from peft_methods.cli.baseline_options import regression_check_of, saved_baselines_of
from peft_methods.cli.deciding import seeds_to_decide
from peft_methods.cli.each_part import recipes_of_each_part, refuse_baseline
from peft_methods.cli.execution import execution_of
from peft_methods.cli.setting_help import how_to_change
from peft_methods.cli.without_tests import refuse_detach
from peft_methods.profiling.environment import find_device
from peft_methods.runs.executors.registry import LOCAL
from peft_methods.runs.limits import DEFAULT_ISOLATION, DEFAULT_RETRIES

if TYPE_CHECKING:
    import pytest

    from peft_methods.analysis.constraints import Constraints
    from peft_methods.analysis.regression import RegressionCheck
    from peft_methods.recipes.schema import Recipe
    from peft_methods.runs.executors.base import Request
    from peft_methods.runs.experiment import MoreSeeds
    from peft_methods.runs.experiment_options import ExperimentOptions
    from peft_methods.runs.plan import RunGroup


AUTO = "auto"  # the engine with the highest priority here
DEFAULT_RECIPE, DEFAULT_GPU_RECIPE = "embedded", "imdb_roberta"
ALL_RECIPES = "all"


@dataclass(frozen=True)
class Options:
    """The values of all options.

    Recipes are loaded when tests need them, or at once if an option concerns them. `how_to_change`
    names the option or argument for a setting.
    """

    recipes: tuple[str, ...]
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    results: Path
    models: tuple[str, ...] = ()
    weights: str | None = None
    data: str | None = None
    trust_remote_code: bool = False
    curve: tuple[int, ...] = ()
    each_part: bool = False
    dry_run: bool = False
    engine: str = AUTO
    trials: int | None = None
    workers: int | None = None
    devices: tuple[str, ...] = ()
    executor: str = LOCAL
    request: Request | None = None
    detach: bool = False
    timeout: float | None = None
    retries: int = DEFAULT_RETRIES
    isolation: str = DEFAULT_ISOLATION
    save_models: Path | None = None
    checkpoint: bool = False
    deterministic: bool = False
    silenced: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    markdown: Path | None = None
    csv: Path | None = None
    report: Path | None = None
    paper: Path | None = None
    limits: Constraints = field(default_factory=dict)
    fit: Constraints = field(default_factory=dict)
    no_estimates: bool = False
    margin: float = MARGIN
    seeds_max: int | None = None
    decide_seconds: float | None = None
    fresh: bool = False
    trackers: tuple[str, ...] = ()
    regression: RegressionCheck | None = None
    saved_baselines: dict[str, Path] = field(default_factory=dict)
    append: bool = False
    how_to_change: Callable[[str], str] = how_to_change
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def device(self) -> str:
        """'cuda' or 'cpu': what runs train on, here or on a cluster."""
        return find_device() if self.request is None else self.request.device

    @property
    def device_name(self) -> str:
        """The GPU's name, or 'cpu'. Baselines are stored under this name."""
        if self.request is not None:
            return self.request.device_name
        from peft_methods.runs.executors.gpu_choice import choose_gpus

        return choose_gpus(self.devices, self.workers).device_name

    def experiment(self) -> ExperimentOptions:
        """Return the options of the experiment."""
        from peft_methods.runs.experiment_options import ExperimentOptions
        from peft_methods.runs.predicted import Limit

        return ExperimentOptions(
            results=self.results,
            save_models=self.save_models,
            workers=self.workers,
            devices=self.devices,
            executor=self.executor,
            request=self.request,
            trials=self.trials,
            fresh=self.fresh,
            timeout=self.timeout,
            retries=self.retries,
            checkpoint=self.checkpoint,
            trackers=self.trackers,
            adding_seconds=self.decide_seconds,
            isolation=self.isolation,
            dry_run=self.dry_run,
            fit={name: Limit(one.written, one.most) for name, one in self.fit.items()},
            no_estimates=self.no_estimates,
        )

    def more_seeds(self) -> MoreSeeds | None:
        """Return what decides on further seeds; None without `seeds_max`."""
        from peft_methods.analysis.adding_seeds import seeds_wanted

        return None if self.seeds_max is None else partial(seeds_wanted, margin=self.margin)

    def tasks(self) -> list[RunGroup]:
        """Return every recipe and method to benchmark. Raises `OptionError`."""
        from peft_methods.recipes.curve import curve_recipes
        from peft_methods.recipes.several_models import recipes_of_models
        from peft_methods.runs.plan import run_groups

        if "tasks" not in self._cache:
            recipes = [
                size
                for name in self.recipes
                for recipe in recipes_of_models(self._recipe, name, self.models)
                for size in curve_recipes(recipe, self.curve)
            ]
            if self.each_part:
                recipes = recipes_of_each_part(
                    recipes, tuned=bool(self.trials), adds_seeds=self.seeds_max is not None
                )
            if self.trials:
                from peft_methods.runs.tuning_grid import check_tuning

                check_tuning(recipes)
            self._cache["tasks"] = run_groups(
                recipes,
                self.methods,
                self.device,
                self.engine,
                deterministic=self.deterministic,
                trust_remote_code=self.trust_remote_code,
                seeds_max=self.seeds_max,
                largest_node=None if self.request is None else self.request.largest_node,
            )
        tasks: list[RunGroup] = self._cache["tasks"]
        return tasks

    def _recipe(self, name: str, model: str | None) -> Recipe:
        """Load a recipe. Notes warn of learning rates that were tuned for another model."""
        from peft_methods.methods.rate_warning import TUNING, rate_warning
        from peft_methods.recipes.loading import load_recipe
        from peft_methods.tasks.inference import infer_task

        recipe = load_recipe(
            name,
            self.settings,
            model=model,
            data=self.data,
            weights=self.weights,
            infer_task=infer_task,
        )
        if model is None or self.trials:
            return recipe
        tuned_for = load_recipe(name, self.settings)
        warning = rate_warning(tuned_for, recipe, self.methods, self.how_to_change(TUNING))
        return replace(recipe, notes=(*recipe.notes, warning)) if warning else recipe


def read_options(config: pytest.Config) -> Options:
    """Read the options from pytest's configuration. Raises `OptionError` for the first bad one."""
    option = config.option
    recipes = values.names_of(option.peft_recipe, "recipe")
    methods = values.names_of(option.peft_method, "method")
    seeds = None if option.peft_seeds is None else values.parse_seeds(option.peft_seeds)
    adding = seeds_to_decide(
        option.peft_decide, option.peft_seeds_max, option.peft_decide_time, option.peft_margin
    )
    options = Options(
        recipes=_every_shipped(recipes) or default_recipes(option.markexpr),
        methods=methods,
        **values.varied(option.peft_set, seeds, option.peft_vary),
        models=values.models_of(option.peft_model),
        weights=option.peft_weights,
        data=option.peft_data,
        trust_remote_code=option.peft_trust_remote_code,
        curve=values.curve_of(option.peft_curve),
        dry_run=option.peft_dry_run,
        results=values.path_of(option.peft_results, "results"),
        engine=option.peft_engine,
        trials=values.trials_of(option.peft_tune),
        **_execution(option),
        save_models=values.folder_of(option.peft_save_models, "save_models"),
        checkpoint=option.peft_checkpoint,
        deterministic=option.peft_deterministic,
        silenced=values.silenced_of(option.peft_silence),
        columns=values.columns_of(option.peft_columns),
        markdown=values.file_of(option.peft_markdown, "markdown"),
        csv=values.file_of(option.peft_csv, "csv"),
        report=values.report_of(option.peft_report),
        paper=values.paper_of(option.peft_paper),
        limits=values.limits_of(option.peft_budget),
        fit=values.limits_of(option.peft_fit, "fit"),
        no_estimates=option.peft_no_estimates,
        **adding,
        fresh=values.fresh_of(option),
        trackers=values.trackers_of(option.peft_track),
    )
    if recipes or methods or _concerns_recipes(option, options):
        options.tasks()
    refuse_baseline(options.each_part, option)
    refuse_detach(options.trials, detach=options.detach)
    return replace(
        options,
        regression=regression_check_of(option, options),
        saved_baselines=saved_baselines_of(option, options),
        append=option.peft_append,
    )


def _concerns_recipes(option: Any, options: Options) -> bool:
    """Whether an option changes recipes, which are loaded at once then."""
    changes = (
        options.settings,
        options.curve or options.trials,
        options.each_part,
        options.seeds_max,
        option.peft_model,
        option.peft_data,
        option.peft_trust_remote_code,
    )
    return any(changes) or options.engine != AUTO or option.peft_weights is not None


def _execution(option: Any) -> dict[str, Any]:
    return execution_of(
        option.peft_executor,
        option.peft_workers,
        option.peft_timeout,
        option.peft_retries,
        option.peft_isolation,
        devices=option.peft_devices,
        slurm=option.peft_slurm,
        detach=option.peft_detach,
        ray_address=option.peft_ray_address,
        ray_kind=option.peft_ray_kind,
    )


def default_recipes(markexpr: str) -> tuple[str, ...]:
    """Return the recipes to run when none is named; `-m gpu` adds one for GPUs."""
    return (DEFAULT_RECIPE, DEFAULT_GPU_RECIPE) if "gpu" in markexpr else (DEFAULT_RECIPE,)


def _every_shipped(names: tuple[str, ...]) -> tuple[str, ...]:
    """Replace the name `all` by every recipe that comes with the project."""
    from peft_methods.recipes.loading import shipped_recipes

    expanded = [
        one for name in names for one in (shipped_recipes() if name == ALL_RECIPES else [name])
    ]
    return tuple(dict.fromkeys(expanded))
