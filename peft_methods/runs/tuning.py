"""Fair tuning: every method gets the same number of trials at the same share of the budget.

Trials are trained and validated; the test rows are never used. Optuna's tree-structured Parzen
estimator chooses them (Akiba et al. 2019, arXiv:1907.10902; Bergstra et al. 2011). The first trial
uses the recipe's own hyperparameters, so tuning either confirms them or finds better ones on
validation data.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import with_methods
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import OptionError, unknown
from peft_methods.utils.words import counted

RATE = "learning_rate"
MAX_REPEATS = 100  # repeated suggestions in a row after which the grid counts as exhausted
TRIAL_SEED = 1000  # not among a comparison's seeds unless it has more than 1000
Settings = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
RunTrials = Callable[[Sequence[RunSpec]], list[Record]]


def check_tuning(recipes: Sequence[Recipe]) -> None:
    """Raise `OptionError` if recipes cannot be tuned.

    Reasons: Optuna is missing, weights are random (no quality), or [tuning.knobs] is invalid.
    """
    if importlib.util.find_spec("optuna") is None:
        raise OptionError("tuning needs Optuna: pip install 'peft-methods[tune]'.", setting="tune")
    for recipe in map(with_methods, recipes):
        if not recipe.has_quality:
            raise OptionError(
                f"recipe {recipe.name!r} cannot be tuned: its weights are random, so it has no "
                "quality to tune. Choose another recipe, or do not tune.",
                setting="tune",
            )
        for name in recipe.tuning.knobs:
            if name not in recipe.methods:
                raise OptionError(
                    f"{recipe.name}: {unknown('method', name, recipe.methods)} (in [tuning.knobs])",
                    setting="tuning.knobs",
                )
            grid_of(recipe, METHODS.create(name, recipe.methods[name], recipe.name, recipe))


def grid_of(recipe: Recipe, method: Method) -> dict[str, tuple[Any, ...]]:
    """Return the values to try for each hyperparameter. Raises `OptionError`.

    They are a grid of learning rates and the values in the recipe's [tuning.knobs].
    """
    tuning = recipe.tuning
    steps = range(tuning.points)
    rates = tuple(
        method.learning_rate * tuning.reach ** (2 * step / (tuning.points - 1) - 1)
        for step in steps
    )
    grid: dict[str, tuple[Any, ...]] = {
        RATE: (*rates[: tuning.points // 2], method.learning_rate, *rates[tuning.points // 2 + 1 :])
    }
    own = asdict(method)
    for name, values in tuning.knobs.get(method.name, {}).items():
        if name not in own or name == RATE:
            allowed = set(own) - {RATE}
            raise OptionError(
                f"{recipe.name}, [tuning.knobs.{method.name}]: "
                f"{unknown('hyperparameter', name, allowed)}",
                setting=f"tuning.knobs.{method.name}",
            )
        for value in values:
            METHODS.create(
                method.name,
                {**recipe.methods.get(method.name, {}), name: value},
                f"{recipe.name}, [tuning.knobs.{method.name}]",
                recipe,
            )
        grid[name] = values if own[name] in values else (own[name], *values)
    return grid


@dataclass
class Search:
    """One method's trials. `run` is the run whose hyperparameters are searched."""

    run: RunSpec
    trials: int
    grid: dict[str, tuple[Any, ...]] = field(init=False)
    finished: list[dict[str, Any]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.grid = grid_of(self.run.recipe, self.run.method)
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=max(2, self.trials // 3))
        self._study = optuna.create_study(
            direction="maximize" if self.sign > 0 else "minimize", sampler=sampler
        )
        own = asdict(self.run.method)
        self._study.enqueue_trial(
            {name: values.index(own[name]) for name, values in self.grid.items()}
        )
        self._asked: Any = None

    @property
    def sign(self) -> int:
        """1 if higher values of the selection metric are better, else -1."""
        recipe = self.run.recipe
        return TASKS[recipe.task].metric(recipe.selection_metric).sign()

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial."""
        return max(1, round(self.run.recipe.tuning.fraction * self.run.recipe.budget.epochs))

    def ask(self) -> RunSpec:
        """Return the next trial. Its settings are new unless the grid is exhausted."""
        chosen = self._suggest()
        for _ in range(MAX_REPEATS):
            known = next((trial for trial in self.finished if trial["settings"] == chosen), None)
            if known is None:
                break
            self._report(known["selection"])
            chosen = self._suggest()
        recipe = replace(
            self.run.recipe, budget=replace(self.run.recipe.budget, epochs=self.epochs)
        )
        method = replace(self.run.method, **chosen)
        label = f"trial{len(self.finished) + 1}"
        return replace(
            self.run, recipe=recipe, method=method, seed=TRIAL_SEED, role="trial", trial=label
        )

    def _suggest(self) -> Settings:
        self._asked = self._study.ask()
        return {
            name: values[self._asked.suggest_int(name, 0, len(values) - 1)]
            for name, values in self.grid.items()
        }

    def _report(self, value: float | None) -> None:
        """Report the validation score of the last suggestion to Optuna; None if it failed."""
        import optuna

        self._study.tell(
            self._asked, value, state=optuna.trial.TrialState.FAIL if value is None else None
        )

    def tell(self, trial: RunSpec, record: Record) -> None:
        """Add a trial's result.

        A trial that failed or has no finite validation score counts as tried and is never chosen.
        """
        best = (
            record.epochs[record.best_epoch - 1]
            if record.status == "ok" and record.best_epoch
            else {}
        )
        value = best.get("selection")
        self.finished.append({
            "settings": {name: getattr(trial.method, name) for name in self.grid},
            "selection": value,
            "validation_loss": best.get("validation_loss"),
            "train_seconds": record.metrics.get("train_seconds"),
            "status": record.status,
            "message": record.message,
        })  # fmt: skip
        self._report(value)

    def winner(self) -> Settings:
        """Return the settings of the trial with the best validation score.

        Ties are decided by the lower validation loss. Empty (the recipe's own settings are kept) if
        no trial has a validation score.
        """
        scored = [trial for trial in self.finished if trial["selection"] is not None]
        if not scored:
            return {}
        best = max(
            scored, key=lambda trial: (self.sign * trial["selection"], -trial["validation_loss"])
        )
        return dict(best["settings"])

    def summary(self) -> dict[str, Any]:
        """Return the trials, their cost, the grid and the winner as JSON values for the record."""
        tuning = self.run.recipe.tuning
        return {
            "trials": self.finished,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "chosen": self.winner(),
            "select_by": self.run.recipe.selection_metric,
            "fraction": tuning.fraction,
            "epochs": self.epochs,
            "train_seconds": sum(trial["train_seconds"] or 0.0 for trial in self.finished),
        }


def tune(runs: Mapping[Key, RunSpec], trials: int, run: RunTrials) -> dict[Key, Search]:
    """Search the hyperparameters of `runs`; return the searches by the same keys.

    In each round `run` trains one trial of every method and returns their records.
    """
    searches = {key: Search(run, trials) for key, run in runs.items()}
    for _ in range(trials):
        chosen = {key: search.ask() for key, search in searches.items()}
        records = run(list(chosen.values()))
        for (key, trial), record in zip(chosen.items(), records, strict=True):
            searches[key].tell(trial, record)
    return searches


def with_tuned_settings(run: RunSpec, search: Search) -> RunSpec:
    """Return the run with the best trial's hyperparameters and the summary of the search."""
    return replace(run, method=replace(run.method, **search.winner()), tuning=search.summary())


def tuning_note(search: Search) -> str:
    """Format a finished search as one line for the notes under the table."""
    trials, chosen, own = search.finished, search.winner(), asdict(search.run.method)
    title, failed = search.run.method.title, sum(one["selection"] is None for one in trials)
    if not chosen:
        none = (
            "the only trial has no" if len(trials) == 1 else f"none of {len(trials)} trials has a"
        )
        return f"{title}: {none} validation score; the recipe's own settings were kept"
    changes = [
        f"{name} {_formatted(own[name])} → {_formatted(value)}"
        for name, value in chosen.items()
        if value != own[name]
    ]
    first = trials[0]["selection"]
    before = "–" if first is None else f"{first:.3f}"
    scores = [trial["selection"] for trial in trials if trial["selection"] is not None]
    best = max(scores, key=lambda score: search.sign * score)
    gain = f" (validation {search.run.recipe.selection_metric} {before} → {best:.3f})"
    outcome = ", ".join(changes) + gain if changes else "the recipe's own settings are the best"
    return (
        f"{title}: {outcome}; {counted(len(trials), 'trial')} of "
        f"{counted(search.epochs, 'epoch')}" + (f", {failed} failed" if failed else "")
    )


def _formatted(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
