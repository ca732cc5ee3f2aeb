"""The Python way in: `compare` does what `pytest benchmarks` does and returns the comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.comparing import Comparison
from peft_methods.environment import find_device
from peft_methods.errors import OptionError
from peft_methods.escaping import visible
from peft_methods.job import DEFAULT_RESULTS, Job, tasks_of
from peft_methods.recipe import load_recipe
from peft_methods.recommending import Limits, Recommendation, parse_limits, recommend
from peft_methods.report.table import markdown_table, terminal_table
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
    tune: int | None = None,
    budget: str | None = None,
    progress: bool = True,
) -> PrintableComparison:
    """Train methods of a recipe (name or TOML path) and compare them.

    `seeds=3` means seeds 0, 1, 2; `seeds=[4, 7]` those two. `settings` are `KEY=VALUE` recipe fields. `model` and
    `data` point the recipe elsewhere; `weights="random"` shows what it costs before any download, without quality.
    `trust_remote_code` lets a model's own Python files run where the recipe wants that too.
    `engine` is `stock` (the Trainer), `graphed` (its steps as CUDA graphs) or `auto`.
    `silence` are ids of validity rules that are not asked.
    `budget` ("memory=8GB,time=10min") restricts what the comparison recommends.
    `tune` trials a method on validation data come first.
    Progress goes to stderr. Works in a script without a main guard and in a notebook.

    Raises `peft_methods.errors.PeftMethodsError` for wrong names, settings, data or models. A cell that fails does not
    raise: its record says why.
    """
    silent = silenced(",".join(silence), "silence") if silence else ()
    limits = parse_limits(budget) if budget is not None else {}
    seed_setting = [] if seeds is None else [f"budget.seeds={seeds if isinstance(seeds, int) else list(seeds)}"]
    if tune is not None and tune < 1:
        raise OptionError(f"tune={tune} should be a whole number of trials a method, 1 or more.")
    chosen = load_recipe(recipe, [*settings, *seed_setting], model=model, data=data, weights=weights)
    if tune is not None:
        check_possible([chosen])
    tasks = tasks_of([chosen], methods, find_device(), engine, trust_remote_code=trust_remote_code)
    job = Job(
        tasks,
        results=Path(results),
        save_models=None if save_models is None else Path(save_models),
        workers=workers,
        trials=tune,
        show=_to_stderr if progress else _to_nobody,
    )
    try:
        job.start()
        if chosen.name in job.errors:
            raise job.errors[chosen.name]
        for task in tasks:
            job.wait(task)
        made = job.comparison()
        return PrintableComparison(made.records, made.notes, made.predictions, silenced=silent, limits=limits)
    finally:
        job.close()


def _to_stderr(text: str, lasting: bool) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{visible(text)}" + "\n" * lasting)
        sys.stderr.flush()
    elif lasting:
        print(visible(text), file=sys.stderr)


def _to_nobody(text: str, lasting: bool) -> None:
    pass
