"""The Python way in: `compare` does what `pytest benchmarks` does and returns the comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.comparing import Comparison
from peft_methods.environment import find_device
from peft_methods.errors import OptionError
from peft_methods.execution.display import Nowhere, display_on
from peft_methods.execution.limits import DEFAULT_RETRIES, parse_retries, parse_timeout
from peft_methods.execution.tracking import checked
from peft_methods.job import DEFAULT_RESULTS, Job
from peft_methods.recipe import load_recipe
from peft_methods.recommending import Limits, Recommendation, parse_limits, recommend
from peft_methods.report.charts import Chart, charts_of
from peft_methods.report.html import report_of, write_report
from peft_methods.report.needs import check_folder, check_report
from peft_methods.report.table import markdown_table, terminal_table
from peft_methods.tasks import tasks_of
from peft_methods.tuning import check_possible
from peft_methods.validity import silenced


@dataclass(frozen=True)
class PrintableComparison(Comparison):
    """A comparison that shows itself: `print(comparison)`, and as a table in a notebook. `limits` restrict what it recommends."""

    limits: Limits = field(default_factory=dict)

    def table(self) -> str:
        """The comparison as the terminal shows it."""
        return terminal_table(self, self.limits)

    def recommendations(self) -> list[Recommendation]:
        """What these figures recommend: best quality, memory, speed, checkpoint."""
        return recommend(self, self.limits)

    def charts(self) -> list[Chart]:
        """All that can be drawn, each shown by a notebook as it is; needs the extra `report`."""
        return [chart for recipe in self.standings for chart in charts_of(self, recipe)]

    def report(self, folder: str | Path) -> Path:
        """Write FOLDER/report.html, with charts beside it; its path. Raises `OptionError` where the extra `report` is missing."""
        check_report("report")
        return write_report(report_of(self, self.limits), Path(folder))

    def paper(self, path: str | Path) -> list[Path]:
        """Write the comparison as a paper, FILE.pdf, with its source and figures beside it; needs the extra `paper`."""
        from peft_methods.report.paper import write_paper

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

    `seeds=3` means seeds 0, 1, 2; `seeds=[4, 7]` those two. `settings` are `KEY=VALUE` recipe fields. `model` and
    `data` point the recipe elsewhere; `weights="random"` shows what it costs before any download, without quality.
    `trust_remote_code` lets a model's own Python files run where the recipe wants that too.
    `engine` is `stock` (the Trainer), `graphed` (its steps as CUDA graphs) or `auto`.
    `silence` are ids of validity rules that are not asked.
    `budget` ("memory=8GB,time=10min") restricts what the comparison recommends.
    `tune` trials a method on validation data come first. `report` is a folder for an HTML report.
    `track` names experiment trackers (tensorboard, wandb, trackio, mlflow, or another one of the Trainer's).
    Cells that an earlier run trained with these `results` are reused; `fresh` trains everything again.
    `checkpoint` saves every epoch's state, so that a cell that was killed goes on from there when this is called again.
    A cell that takes longer than `timeout` ("10min", or seconds) is ended; one whose process was killed, or whose GPU
    failed, is tried again `retries` times.
    `deterministic` allows on a GPU only operations that give the same bits every time (on a CPU all do).
    Progress goes to stderr. Works in a script without a main guard and in a notebook.

    Raises `peft_methods.errors.PeftMethodsError` for wrong names, settings, data or models. A cell that fails does not
    raise: its record says why.
    """
    silent = silenced(",".join(silence), "silence") if silence else ()
    limit, tries = parse_timeout(timeout, "timeout="), parse_retries(retries, "retries=")
    limits = parse_limits(budget) if budget is not None else {}
    seed_setting = (
        []
        if seeds is None
        else [f"budget.seeds={seeds if isinstance(seeds, int) else list(seeds)}"]
    )
    if tune is not None and tune < 1:
        raise OptionError(f"tune={tune} should be a whole number of trials a method, 1 or more.")
    if report is not None:
        check_report("report")
        check_folder(Path(report), "report")
    chosen = load_recipe(
        recipe, [*settings, *seed_setting], model=model, data=data, weights=weights
    )
    if tune is not None:
        check_possible([chosen])
    trackers = checked(track.split(",") if isinstance(track, str) and track else track, "track")
    tasks = tasks_of(
        [chosen],
        methods,
        find_device(),
        engine,
        deterministic=deterministic,
        trust_remote_code=trust_remote_code,
    )
    job = Job(
        tasks,
        results=Path(results),
        save_models=None if save_models is None else Path(save_models),
        workers=workers,
        trials=tune,
        fresh=fresh,
        timeout=limit,
        retries=tries,
        checkpoint=checkpoint,
        trackers=trackers,
        display=display_on(sys.stderr) if progress else Nowhere(),
    )
    try:
        job.start()
        if chosen.name in job.errors:
            raise job.errors[chosen.name]
        for task in tasks:
            job.wait(task)
        if trackers:
            job.track(lambda comparison: markdown_table(comparison, limits))
        made = job.comparison()
        compared = PrintableComparison(
            made.records, made.notes, made.predictions, silenced=silent, limits=limits
        )
        if report is not None:
            compared.report(report)
        return compared
    finally:
        job.close()
