"""The Python API: `compare` does the same as `pytest benchmarks` and returns the comparison."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.analysis.checks.rule import parse_silenced
from peft_methods.analysis.comparison import Comparison, comparison_of
from peft_methods.analysis.constraints import Constraints, parse_constraints
from peft_methods.analysis.questions import Recommendation
from peft_methods.analysis.recommendations import recommend
from peft_methods.profiling.environment import find_device
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.charts import charts_of
from peft_methods.report.charts.base import Chart
from peft_methods.report.html.page import build_report, write_report
from peft_methods.report.requirements import check_folder, check_libraries
from peft_methods.report.text.comparison import markdown_table, terminal_table, tracked_tables
from peft_methods.runs.experiment import DEFAULT_RESULTS, Experiment, ExperimentOptions
from peft_methods.runs.limits import DEFAULT_RETRIES, parse_retries, parse_timeout
from peft_methods.runs.plan import run_groups
from peft_methods.runs.progress.display import NullDisplay, display_on
from peft_methods.runs.tracking.trackers import parse_trackers
from peft_methods.runs.tuning import check_tuning
from peft_methods.utils.errors import OptionError, PeftMethodsError

ARGUMENT_NAMES = {
    "budget.seeds": "seeds",
    "data.source": "data",
    "limits": "budget",
    "model.source": "model",
    "model.weights": "weights",
    "trackers": "track",
    "trials": "tune",
}  # settings whose argument of `compare` has another name


@dataclass(frozen=True)
class PrintableComparison(Comparison):
    """A comparison that prints as a table, also in a notebook.

    `limits` restrict what it recommends.
    """

    limits: Constraints = field(default_factory=dict)

    def table(self) -> str:
        """Format the comparison as it appears in the terminal."""
        return terminal_table(self, self.limits)

    def recommendations(self) -> list[Recommendation]:
        """Return recommendations for best quality, memory, speed and checkpoint size."""
        return recommend(self, self.limits)

    def charts(self) -> list[Chart]:
        """Create all charts, which notebooks display; needs the extra `report`."""
        return [chart for recipe in self.rankings for chart in charts_of(self, recipe)]

    def report(self, folder: str | Path) -> Path:
        """Write FOLDER/report.html with its charts and return its path.

        Raises `OptionError` if the extra `report` is not installed.
        """
        check_libraries("report")
        return write_report(build_report(self, self.limits), Path(folder))

    def paper(self, path: str | Path) -> list[Path]:
        """Write the comparison as a paper, FILE.pdf, with its source and figures; needs `paper`.

        Returns the paths of all files. The extra `paper` must be installed.
        """
        from peft_methods.report.paper.document import write_paper

        return write_paper(self, Path(path), self.limits)

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return markdown_table(self, self.limits)


def compare(
    recipe: str = "embedded",
    *,
    methods: Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    model: str | None = None,
    data: str | None = None,
    weights: str | None = None,
    trust_remote_code: bool = False,
    engine: str = "auto",
    settings: Sequence[str] = (),
    silence: Sequence[str] = (),
    results: str | Path = DEFAULT_RESULTS,
    save_models: str | Path | None = None,
    workers: int | None = None,
    checkpoint: bool = False,
    deterministic: bool = False,
    tune: int | None = None,
    fresh: bool = False,
    budget: str | None = None,
    report: str | Path | None = None,
    timeout: str | float | None = None,
    retries: int = DEFAULT_RETRIES,
    track: str | Sequence[str] = (),
    progress: bool = True,
) -> PrintableComparison:
    """Train methods of a recipe (name or TOML path) and compare them.

    `seeds=3` means seeds 0, 1, 2; `seeds=[4, 7]` means those two. `settings` are `KEY=VALUE`
    recipe fields. `model` and `data` replace the recipe's. `weights="random"` measures the cost
    before any download, without quality. `trust_remote_code` allows a model's own Python files to
    run, if the recipe allows it too. `engine` is `stock` (the Hugging Face Trainer), `graphed`
    (its steps as CUDA graphs) or `auto`.

    `silence` lists ids of validity rules to skip. `budget` ("memory=8GB,time=10min") restricts
    the recommendations. `tune` is the number of tuning trials per method on validation data,
    which come first. `report` is a folder for an HTML report. `track` names experiment trackers
    (tensorboard, wandb, trackio, mlflow, or another one that the Trainer supports).

    Runs with a record in `results` from an earlier session are reused; `fresh` trains everything
    again. `checkpoint` saves every epoch's state, so that a killed run resumes from there in the
    next call. A run that takes longer than `timeout` ("10min", or seconds) is ended. A run whose
    process was killed or whose GPU failed is retried `retries` times. `deterministic` allows on a
    GPU only operations that give identical bits every time (on a CPU all do).

    Progress goes to stderr. Works in a script without a main guard and in a notebook.

    Raises `peft_methods.utils.errors.PeftMethodsError` for wrong names, settings, data or models. A
    failed run does not raise: its record holds the reason.
    """
    with _explained():
        silent = parse_silenced(",".join(silence), "silence") if silence else ()
        limit, tries = parse_timeout(timeout, "timeout="), parse_retries(retries, "retries=")
        limits = parse_constraints(budget) if budget is not None else {}
        _check_tune_and_report(tune, report)
        chosen = load_recipe(
            recipe, [*settings, *_seed_setting(seeds)], model=model, data=data, weights=weights
        )
        if tune is not None:
            check_tuning([chosen])
        trackers = parse_trackers(
            track.split(",") if isinstance(track, str) and track else track, "track"
        )
        tasks = run_groups(
            [chosen],
            methods,
            find_device(),
            engine,
            deterministic=deterministic,
            trust_remote_code=trust_remote_code,
        )
        options = ExperimentOptions(
            results=Path(results),
            save_models=None if save_models is None else Path(save_models),
            workers=workers,
            trials=tune,
            fresh=fresh,
            timeout=limit,
            retries=tries,
            checkpoint=checkpoint,
            trackers=trackers,
        )
        display = display_on(sys.stderr) if progress else NullDisplay()
        return _run(Experiment(tasks, options, display), silent, limits, report)


def _seed_setting(seeds: int | Sequence[int] | None) -> list[str]:
    """Convert `seeds` to a recipe field."""
    if seeds is None:
        return []
    return [f"budget.seeds={seeds if isinstance(seeds, int) else list(seeds)}"]


def _check_tune_and_report(tune: int | None, report: str | Path | None) -> None:
    if tune is not None and tune < 1:
        raise OptionError(f"tune={tune} should be a whole number of trials per method, 1 or more.")
    if report is not None:
        check_libraries("report")
        check_folder(Path(report), "report")


def _run(
    experiment: Experiment, silent: tuple[str, ...], limits: Constraints, report: str | Path | None
) -> PrintableComparison:
    """Run all tasks and compare their records."""
    try:
        experiment.start()
        for error in experiment.errors.values():
            raise error
        for task in experiment.tasks:
            experiment.wait(task)
        if experiment.options.trackers:
            comparison = comparison_of(experiment.results())
            experiment.track(tracked_tables(comparison, limits))
        results = experiment.results()
        compared = PrintableComparison(
            results.records, results.notes, results.predictions, silent, limits=limits
        )
        if report is not None:
            compared.report(report)
        return compared
    finally:
        experiment.close()


def how_to_change(setting: str) -> str:
    """Name the argument of `compare` for a setting: 'workers' -> 'workers=…'; '' -> ''.

    Settings of a recipe without an argument: 'budget.epochs' -> 'settings=["budget.epochs=…"]'.
    """
    if not setting:
        return ""
    name = ARGUMENT_NAMES.get(setting, setting)
    parameter = inspect.signature(compare).parameters.get(name)
    if parameter is None:
        return f'settings=["{setting}=…"]'
    return f"{name}={'True' if parameter.default is False else '…'}"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Context manager: add how to change its setting to the message of an error."""
    try:
        yield
    except PeftMethodsError as error:
        if change := how_to_change(error.setting):
            error.args = (f"{error.args[0]} Change it with {change}.", *error.args[1:])
        raise
