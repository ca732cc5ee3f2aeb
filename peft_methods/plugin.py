"""pytest options, fixtures and hooks. All computation is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from peft_methods.cli import benchmark_table, gpu_leases, regression_check, summary
from peft_methods.cli.arguments import add_options
from peft_methods.cli.benchmark_json import extra_info
from peft_methods.cli.encoding import make_terminal_printable
from peft_methods.cli.interrupts import NAME, Interrupts, skippable
from peft_methods.cli.misuse import check_blanks, check_used
from peft_methods.cli.options import Options, read_options
from peft_methods.cli.outcome import Outcome, problems_of
from peft_methods.cli.rounds import TrainingClock, record_rounds
from peft_methods.cli.setting_help import explained, how_to_change
from peft_methods.cli.terminal import progress_display, show_text
from peft_methods.utils.errors import OptionError, PeftMethodsError
from peft_methods.utils.sanitize import visible

if TYPE_CHECKING:
    from peft_methods.analysis.regression_report import RegressionReport
    from peft_methods.data.facts import TokenData
    from peft_methods.methods.base import Method
    from peft_methods.models.loading import LoadedModel
    from peft_methods.recipes.schema import Recipe
    from peft_methods.runs.experiment import Experiment
    from peft_methods.runs.plan import RunGroup


OPTIONS = pytest.StashKey[Options]()
EXPERIMENT: pytest.StashKey[Experiment] = pytest.StashKey()
COMPLETE = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}
REGRESSIONS: pytest.StashKey[RegressionReport] = pytest.StashKey()
HAS_BENCHMARKS = pytest.StashKey[bool]()  # among the collected tests, before any is deselected
MARKERS = (
    "gpu: needs an NVIDIA GPU; skipped if there is none",
    "harness: measures the harness itself; run with -m harness",
    "peft_devices(n): number of GPUs that the fixture peft_devices gives this test (default: 1)",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)
    gpu_leases.add_setting(parser)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        gpu_leases.configure(config)
        check_blanks(config)
        config.stash[OPTIONS] = read_options(config)
    except OptionError as error:
        raise pytest.UsageError(explained(error)) from None


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """For `--peft-rules`, print the rules and exit."""
    if not config.option.peft_rules:
        return None
    from peft_methods.report.text.rules import rules_text

    print(rules_text(how_to_change("silence")))
    return 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "finetune_task" not in metafunc.fixturenames:
        return
    parameters = []
    for task in metafunc.config.stash[OPTIONS].tasks():
        marks = [pytest.mark.benchmark(timer=TrainingClock(), group=task.recipe.name)]
        # The test itself reports if no seed succeeded.
        marks += [pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")]
        marks += [pytest.mark.gpu] * task.recipe.gpu
        parameters.append(
            pytest.param(task, marks=marks, id=f"{task.recipe.name}-{task.method.name}")
        )
    metafunc.parametrize("finetune_task", parameters, indirect=True)


def _task(item: pytest.Item) -> RunGroup | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("finetune_task") if callspec else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[HAS_BENCHMARKS] = any(_task(item) is not None for item in items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Create the experiment for all selected benchmarks. The first of them starts it."""
    config = session.config
    gpu_leases.collected(config, session.items)
    tasks = [
        task
        for item in session.items
        if (task := _task(item)) is not None and "finetune" in getattr(item, "fixturenames", ())
    ]
    if not (config.stash.get(HAS_BENCHMARKS, True) or session.testsfailed):
        check_used(config)
    if not tasks or config.option.collectonly:
        return
    make_terminal_printable(config)
    from peft_methods.runs.experiment import Experiment

    options = config.stash[OPTIONS]
    try:
        config.stash[EXPERIMENT] = Experiment(
            tasks, options.experiment(), progress_display(config), options.more_seeds()
        )
    except PeftMethodsError as error:
        raise pytest.UsageError(explained(error)) from None
    if not config.option.usepdb:  # a debugger's prompt handles Ctrl-C itself
        experiment = config.stash[EXPERIMENT]
        interrupts = Interrupts(experiment.close, experiment.progress.leave)
        config.pluginmanager.register(interrupts, NAME)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Instead of running the tests, print the plan of a dry run, or start the runs and detach."""
    options = session.config.stash[OPTIONS]
    experiment = session.config.stash.get(EXPERIMENT, None)
    if session.config.option.collectonly or experiment is None:
        return None
    if not (options.dry_run or options.detach):
        return None
    from peft_methods.cli.without_tests import detach, plan

    try:
        text, errors = plan(experiment) if options.dry_run else detach(experiment)
    except OptionError as error:
        raise pytest.UsageError(explained(error)) from None
    session.testsfailed += errors
    show_text(session.config, text)
    return True


@pytest.fixture
def peft_devices(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """The UUIDs of the GPUs that this test has for itself: cuda:0 and following, in any suite."""
    with gpu_leases.of_test(request) as own:
        yield own


@pytest.fixture
def finetune_task(request: pytest.FixtureRequest) -> RunGroup:
    """The recipe and method of this benchmark."""
    task: RunGroup = request.param
    return task


@pytest.fixture
def peft_recipe(finetune_task: RunGroup) -> Recipe:
    """The recipe of this benchmark."""
    return finetune_task.recipe


@pytest.fixture
def peft_method(finetune_task: RunGroup) -> Method:
    """The method of this benchmark, with its hyperparameters."""
    return finetune_task.method


@pytest.fixture
def peft_model(peft_recipe: Recipe, peft_method: Method) -> LoadedModel:
    """The recipe's model before the method is applied, with tokenizer and architecture."""
    from peft_methods.data import synthetic
    from peft_methods.models import loading
    from peft_methods.tasks.registry import TASKS

    task = TASKS[peft_recipe.task]
    return loading.load(
        peft_recipe.model,
        task.head,
        synthetic.load(peft_recipe, task).facts.label_names,
        quantization=peft_method.info.quantization,
        precision=peft_recipe.budget.precision,
    )


@pytest.fixture
def peft_data(peft_recipe: Recipe, peft_model: LoadedModel) -> TokenData:
    """The recipe's tokenized train, validation and test splits."""
    from peft_methods.data import synthetic, tokenize
    from peft_methods.tasks.registry import TASKS

    texts = synthetic.load(peft_recipe, TASKS[peft_recipe.task])
    return tokenize.tokenize(texts, peft_model.tokenizer, peft_recipe.data, TASKS[peft_recipe.task])


@pytest.fixture
def finetune(
    request: pytest.FixtureRequest, finetune_task: RunGroup, benchmark: Any
) -> Callable[[], Outcome]:
    """Return a function that trains every seed of this recipe and method.

    Each round of `benchmark` is one seed's training time.
    """

    def run() -> Outcome:
        if hasattr(request.config, "workerinput"):
            pytest.fail(
                "pytest-benchmark is disabled under xdist: leave out -n. Without it, runs train "
                "side by side too, one on each GPU (--peft-workers, --peft-devices).",
                pytrace=False,
            )
        # Until the report resets it: otherwise an interrupt ends in "fixture was not used".
        benchmark.skipped = True
        experiment = request.config.stash[EXPERIMENT]
        experiment.start()
        records = experiment.wait(finetune_task)
        if records and all(record.status == "skipped" for record in records):
            pytest.skip(visible(records[0].message))
        if good := [record for record in records if record.status == "ok"]:
            record_rounds(request.node, benchmark, good, extra_info(good))
        options = request.config.stash[OPTIONS]
        checked = options.regression.check_method(records) if options.regression else ()
        regressions = (str(entry) for entry in checked if entry.is_failure)
        prerequisites = experiment.prerequisite_records(finetune_task)
        error = experiment.errors.get(finetune_task.recipe.name)
        problems = problems_of(records, prerequisites, error, options.silenced)
        return Outcome(tuple(records), tuple(map(visible, (*problems, *regressions))))

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Stop all runs, also after an interrupt or when -x or --maxfail ends the session."""
    experiment, options = (
        session.config.stash.get(EXPERIMENT, None),
        session.config.stash.get(OPTIONS, None),
    )
    if experiment is None or options is None:
        return
    ended_early = exitstatus not in COMPLETE or bool(session.shouldfail or session.shouldstop)
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        experiment.progress.leave()
        progress_display(session.config).say(
            "peft-methods: stopping; the table follows. Press Ctrl-C again to exit without it."
        )
    if not (options.dry_run or options.detach or ended_early):
        agrees = experiment.verify() or "V414" in options.silenced
        if session.exitstatus == 0 and not agrees:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        with skippable(session.config):
            experiment.predict()
    experiment.stop()
    if ended_early and (options.regression or options.saved_baselines):
        session.config.stash[REGRESSIONS] = regression_check.ended_early()
    elif not (options.dry_run or options.detach or ended_early):
        if options.trackers:
            from peft_methods.analysis.comparison import comparison_of
            from peft_methods.report.text.comparison import tracked_tables

            comparison = comparison_of(experiment.results(), margin=options.margin)
            experiment.track(tracked_tables(comparison, options.limits))
        session.config.stash[REGRESSIONS] = regression_check.finish(
            session,
            experiment.results().records,
            options.regression,
            options.saved_baselines,
            append=options.append,
        )


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_group_stats(config: pytest.Config) -> Generator[None, Any, Any]:
    """Leave our benchmarks out of pytest-benchmark's table, unless an option asks for it."""
    groups = yield
    return groups if benchmark_table.is_wanted(config) else benchmark_table.without_ours(groups)


@pytest.hookimpl(tryfirst=True)  # above pytest-benchmark's table
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    experiment, options = config.stash.get(EXPERIMENT, None), config.stash.get(OPTIONS, None)
    if experiment is None or options is None or options.detach:
        return
    from peft_methods.analysis.comparison import comparison_of

    comparison = comparison_of(experiment.results(), options.silenced, options.margin)
    if comparison.records or experiment.untrained():
        summary.write(terminalreporter, comparison, options, config.stash.get(REGRESSIONS, None))


def pytest_unconfigure(config: pytest.Config) -> None:
    experiment = config.stash.get(EXPERIMENT, None)
    if experiment is not None:
        experiment.close()
