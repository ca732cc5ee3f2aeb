"""The Python API: `compare` does the same as `pytest benchmarks` and returns the comparison.

It works in scripts and notebooks. A failed run does not raise: its record holds the reason. The
arguments, by what they decide:

What is compared. `recipe` is a name or the path of a TOML file; `methods` are names of methods.
`seeds=3` means seeds 0, 1, 2; `seeds=[4, 7]` means those two. `vary` lists the parts that seeds
vary; `vary="each"` trains every part alone too, to measure where the noise comes from. With
`decide` ("1pp"), seeds are added until each method is worse than the best one or equal to it within
these points, up to `seeds_max` a method; after `decide_time` ("30min", or seconds) no more are
added. `settings` are `KEY=VALUE` recipe fields. `model` and `data` replace the recipe's; several
models in a list are compared on the same rows. With other data, which may be one file, the recipe's
sizes are upper limits and missing splits are cut from train. `task` names the task of these data
("regression"); without it, it is inferred where the columns leave no doubt. `weights="random"`
measures the cost before any download, without quality. `curve=[100, 300, 1000]` trains on each of
these numbers of rows and shows how quality depends on them. `trust_remote_code` allows a model's
own Python files to run, if the recipe allows it too. `tune` is the number of tuning trials per
method on validation data, which come first.

How it is trained. `engine` is `trainer` (the Hugging Face Trainer), `cuda_graphs` (its steps as
CUDA graphs) or `auto`. `workers` is the number of runs at a time, `devices` the GPUs for them
("0,2" or UUIDs; by default all of one kind). `executor` is where they happen: `local` is this
machine, `ray` the Ray cluster at `ray_address` (of its kinds of devices that of `ray_kind`),
`slurm` a Slurm cluster (`slurm={"partition": "gpu", "time": "2h"}` is what each job asks for), and
an installed package can bring others. `deterministic` allows on a GPU only operations that give
identical bits every time (on a CPU all do). Runs with a record in `results` from an earlier session
are reused; `fresh` trains everything again. `checkpoint` saves every epoch's state, so that a
killed run resumes from there in the next call. `timeout` ("10min", or seconds) ends a run. One
whose process was killed or GPU failed is retried `retries` times. Runs that need more than `fit`
("memory=16GB,time=2h") by estimate are skipped. After the last run on a GPU, the memory and time of
new runs are estimated and stored beside what was measured, unless `no_estimates`. `isolation`:
"fresh" (a process for each run), or "warm" (a process does one run after another, as long as each
leaves it as it was).

What is written and shown. `report` is a folder for an HTML report; `save_models` is one for each
run's best model. `budget` ("memory=8GB,time=10min") restricts the recommendations. Differences of
quality up to `margin` ("1pp") count as none. `silence` lists ids of rules to skip. `track` names
experiment trackers (tensorboard, wandb, …). `progress` is a table in a notebook, else on stderr.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from peft_methods.analysis.comparison import comparison_of
from peft_methods.cli import parsing
from peft_methods.cli.deciding import seeds_to_decide
from peft_methods.cli.execution import execution_of
from peft_methods.cli.options import Options
from peft_methods.cli.printable import PrintableComparison, PrintableEstimates
from peft_methods.cli.setting_help import OPTIONS as COMMAND_LINE
from peft_methods.cli.setting_help import with_change
from peft_methods.estimation import api as estimation
from peft_methods.estimation.api import Estimates
from peft_methods.report.text.comparison import tracked_tables
from peft_methods.runs.experiment import Experiment
from peft_methods.runs.experiment_options import DEFAULT_RESULTS
from peft_methods.runs.limits import DEFAULT_ISOLATION, DEFAULT_RETRIES
from peft_methods.runs.progress.display import Display, NullDisplay
from peft_methods.runs.progress.notebook import display_here
from peft_methods.utils.errors import PeftMethodsError

P = ParamSpec("P")
__all__ = ["PrintableComparison", "PrintableEstimates", "compare", "estimate", "how_to_change"]
ARGUMENT_NAMES = {
    "budget.seeds": "seeds",
    "budget.vary": "vary",
    "data.source": "data",
    "data.train_subset": "curve",
    "limits": "budget",
    "method": "methods",
    "model.source": "model",
    "model.weights": "weights",
    "trackers": "track",
    "trials": "tune",
}  # settings whose argument of `compare` has another name
ARGUMENTS_OF_ESTIMATE = {
    "budget.batch_size": "batch_size",
    "budget.gradient_checkpointing": "checkpointing",
    "budget.precision": "precision",
    "data.max_length": "max_length",
}


@contextlib.contextmanager
def _explained(how: Callable[[str], str] | None = None) -> Iterator[None]:
    """Context manager: add how to change its setting to the message of an error."""
    try:
        yield
    except PeftMethodsError as error:
        if change := (how or how_to_change)(error.setting):
            error.args = (with_change(str(error.args[0]), change), *error.args[1:])
        raise


@_explained()
def compare(
    recipe: str = "embedded",
    *,
    methods: Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    vary: str | Sequence[str] | None = None,
    model: str | Sequence[str] | None = None,
    data: str | None = None,
    task: str | None = None,
    weights: str | None = None,
    curve: str | Sequence[int] | None = None,
    trust_remote_code: bool = False,
    engine: str = "auto",
    settings: Sequence[str] = (),
    silence: Sequence[str] = (),
    results: str | Path = DEFAULT_RESULTS,
    save_models: str | Path | None = None,
    workers: int | None = None,
    devices: str | Sequence[str | int] | None = None,
    executor: str = "local",
    slurm: Mapping[str, str] | None = None,
    ray_address: str | None = None,
    ray_kind: str | None = None,
    checkpoint: bool = False,
    deterministic: bool = False,
    tune: int | None = None,
    fresh: bool = False,
    budget: str | None = None,
    margin: str | None = None,
    decide: str | None = None,
    seeds_max: int | None = None,
    decide_time: str | float | None = None,
    fit: str | None = None,
    no_estimates: bool = False,
    report: str | Path | None = None,
    timeout: str | float | None = None,
    retries: int = DEFAULT_RETRIES,
    isolation: str = DEFAULT_ISOLATION,
    track: str | Sequence[str] = (),
    progress: bool = True,
) -> PrintableComparison:
    """Train methods of a recipe and compare them: quality, time, memory and size.

    `help(peft_methods.api)` explains the arguments. Raises `PeftMethodsError` for wrong input.
    """
    cluster = {"slurm": slurm or {}, "ray_address": ray_address, "ray_kind": ray_kind}
    options = Options(
        recipes=(recipe,),
        methods=tuple(methods or ()),
        **parsing.varied(parsing.with_task(settings, task), seeds, vary),
        results=parsing.path_of(results, "results"),
        **_sources(model, data, curve, weights=weights, trust_remote_code=trust_remote_code),
        engine=engine,
        trials=parsing.trials_of(tune),
        **execution_of(executor, workers, timeout, retries, isolation, devices=devices, **cluster),
        **_flags(checkpoint=checkpoint, deterministic=deterministic, no_estimates=no_estimates),
        **seeds_to_decide(decide, seeds_max, decide_time, margin),
        **_outputs(report, save_models, silence, track, budget, fresh=fresh, fit=fit),
    )
    return _run(options, display_here(sys.stderr) if progress else NullDisplay())


def _sources(model: Any, data: str | None, curve: Any, **others: Any) -> dict[str, Any]:
    models, sizes = parsing.models_of(model), parsing.curve_of(curve)
    return {"models": models, "data": data, "curve": sizes, **others}


def _flags(**given: bool) -> dict[str, Any]:
    return given


def _outputs(
    report: str | Path | None,
    save_models: str | Path | None,
    silence: Sequence[str],
    track: str | Sequence[str],
    budget: str | None,
    *,
    fresh: bool,
    fit: str | None,
) -> dict[str, Any]:
    return {
        "fresh": fresh,
        "fit": parsing.limits_of(fit, "fit"),
        "limits": parsing.limits_of(budget),
        "silenced": parsing.silenced_of(silence),
        "report": parsing.report_of(report),
        "save_models": parsing.folder_of(save_models, "save_models"),
        "trackers": parsing.trackers_of(track),
        "how_to_change": how_to_change,
    }


def _run(options: Options, display: Display) -> PrintableComparison:
    """Train all runs and compare their records."""
    experiment = Experiment(options.tasks(), options.experiment(), display, options.more_seeds())
    with contextlib.closing(experiment), experiment.progress.leaving():
        experiment.start()
        for error in experiment.errors.values():
            raise error
        for task in experiment.tasks:
            experiment.wait(task)
        experiment.verify()
        experiment.predict()
        if options.trackers:
            comparison = comparison_of(experiment.results(), margin=options.margin)
            experiment.track(tracked_tables(comparison, options.limits))
        results = experiment.results()
        compared = PrintableComparison(
            results.records,
            results.notes,
            results.predictions,
            options.silenced,
            options.margin,
            limits=options.limits,
        )
        if options.report is not None:
            compared.report(options.report)
        return compared


def how_to_change(setting: str) -> str:
    """Name the argument of `compare` for a setting: 'workers' -> 'workers=…'; '' -> ''.

    Settings of a recipe without an argument: 'budget.epochs' -> 'settings=["budget.epochs=…"]'.
    Options of the command line that `compare` does not have: 'baseline' -> ''.
    """
    name = ARGUMENT_NAMES.get(setting, setting)
    parameter = inspect.signature(compare).parameters.get(name)
    if not setting or (parameter is None and name in COMMAND_LINE):
        return ""
    if parameter is None:
        return f'settings=["{setting}=…"]'
    return f"{name}={'True' if parameter.default is False else '…'}"


def _argument_of_estimate(setting: str) -> str:
    """Name the argument of `estimate` for a setting."""
    names = {**ARGUMENT_NAMES, **ARGUMENTS_OF_ESTIMATE}
    name = names.get(setting, setting)
    if not setting or name in inspect.signature(estimate).parameters:
        return f"{name}=…" if setting else ""
    return f'settings=["{setting}=…"]'


def _printed(estimate: Callable[P, Estimates]) -> Callable[P, PrintableEstimates]:
    """Let the estimates of a function with the same arguments print as a table."""

    @functools.wraps(estimate)
    def made(*arguments: P.args, **settings: P.kwargs) -> PrintableEstimates:
        found = estimate(*arguments, **settings)
        return PrintableEstimates.of(found, found.question, found.gpu, found.notes)

    return made


estimate = _explained(_argument_of_estimate)(_printed(estimation.estimate))
