"""Fair tuning: every method gets the same number of trials at the same share of the budget.

Trials are trained and validated; the test rows are never used. Optuna's tree-structured Parzen
estimator chooses them (Akiba et al. 2019, arXiv:1907.10902; Bergstra et al. 2011). The first trial
uses the recipe's own hyperparameters.

The best of several noisy scores is high by chance, and short trials may favour high learning rates,
whose schedule ends with the trial. So the best trial's settings replace the recipe's own only after
a confirmation: both are trained in full with new seeds, and the lower end of the gain's interval
must be above 0 (`tuning_gain`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np

from peft_methods.runs.record import Record
from peft_methods.runs.results import Result, read_predictions
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.runs.tuning_curve import curve_note
from peft_methods.runs.tuning_gain import Array, gain_of, plain
from peft_methods.runs.tuning_grid import Grid, grid_of
from peft_methods.runs.tuning_text import outcome_text
from peft_methods.tasks.registry import TASKS

MAX_REPEATS = 100  # repeated suggestions in a row after which any untried settings are taken
TRIAL_SEED = 1000  # not among a comparison's seeds unless it has more than 1000
Settings = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
RunTrials = Callable[[Sequence[RunSpec]], list[Result]]  # predictions are for validation rows


@dataclass
class Search:
    """One method's trials. `run` is the run whose hyperparameters are searched."""

    run: RunSpec
    trials: int
    grid: Grid = field(init=False)
    finished: list[dict[str, Any]] = field(init=False, default_factory=list)
    confirmation: dict[str, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.grid = grid_of(self.run.recipe, self.run.method)
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=max(2, self.trials // 3))
        self._study = optuna.create_study(
            direction="maximize" if self.sign > 0 else "minimize", sampler=sampler
        )
        own = asdict(self.run.method)
        self._own = {name: own[name] for name in self.grid}
        self._enqueue(self._own)
        self._asked: Any = None
        self._scores: list[Array | None] = []  # of the validation rows, by trial

    @property
    def sign(self) -> int:
        """1 if higher values of the selection metric are better, else -1."""
        recipe = self.run.recipe
        return TASKS[recipe.task].metric(recipe.selection_metric).sign()

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial."""
        return max(1, round(self.run.recipe.tuning.fraction * self.run.recipe.budget.epochs))

    def ask(self) -> RunSpec | None:
        """Return the next trial, with settings that were not tried; None if all were."""
        if len(self.finished) == math.prod(map(len, self.grid.values())):
            return None
        chosen = self._suggest()
        for _ in range(MAX_REPEATS):
            known = next((trial for trial in self.finished if trial["settings"] == chosen), None)
            if known is None:
                return self._trial(chosen, TRIAL_SEED, f"trial{len(self.finished) + 1}")
            self._report(known["selection"])
            chosen = self._suggest()
        tried = [trial["settings"] for trial in self.finished]
        every = (dict(zip(self.grid, one, strict=True)) for one in product(*self.grid.values()))
        self._report(None)
        self._enqueue(next(one for one in every if one not in tried))
        return self._trial(self._suggest(), TRIAL_SEED, f"trial{len(self.finished) + 1}")

    def _trial(self, chosen: Settings, seed: int, label: str, epochs: int = 0) -> RunSpec:
        budget = replace(self.run.recipe.budget, epochs=epochs or self.epochs)
        return replace(
            self.run,
            recipe=replace(self.run.recipe, budget=budget),
            method=replace(self.run.method, **chosen),
            seed=seed,
            role="trial",
            trial=label,
        )

    def _enqueue(self, chosen: Settings) -> None:
        """Let the next suggestion be these settings."""
        self._study.enqueue_trial(
            {name: values.index(chosen[name]) for name, values in self.grid.items()}
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

    def tell(self, trial: RunSpec, tried: Result) -> None:
        """Add a trial's result.

        A trial that failed or has no finite validation score counts as tried and is never chosen.
        """
        record, scores = tried[0], self._scores_of(tried)
        best: dict[str, float | None] = {}
        if scores is not None and record.best_epoch:
            best = record.epochs[record.best_epoch - 1]
        value = best.get("selection")
        self._scores.append(scores)
        self.finished.append({
            "settings": {name: getattr(trial.method, name) for name in self.grid},
            "selection": value,
            "validation_loss": best.get("validation_loss"),
            "train_seconds": record.metrics.get("train_seconds"),
            "status": record.status,
            "message": record.message,
        })  # fmt: skip
        self._report(value)

    def _scores_of(self, tried: Result) -> Array | None:
        """Return one score per validation row, higher is better; None without a finite one."""
        record, predictions = tried
        if record.status != "ok" or predictions is None or not predictions.is_finite:
            return None
        recipe = self.run.recipe
        return self.sign * TASKS[recipe.task].example_scores(predictions, recipe.selection_metric)

    def best(self) -> int | None:
        """Return the index of the trial with the best validation score, or None without any.

        Ties are decided by the lower validation loss, but in favour of the recipe's own settings.
        """
        scored = [n for n, trial in enumerate(self.finished) if trial["selection"] is not None]

        def rank(number: int) -> tuple[float, bool, float]:
            trial = self.finished[number]
            return self.sign * trial["selection"], number == 0, -trial["validation_loss"]

        return max(scored, key=rank, default=None)

    def confirmation_runs(self) -> list[RunSpec]:
        """Return runs in full of the recipe's own settings, then of the best trial's.

        None are needed if the recipe's own settings are the best, or if no trial has a score.
        """
        best = self.best()
        if not best:
            return []
        numbers = range(1, self.run.recipe.tuning.seeds + 1)
        epochs = self.run.recipe.budget.epochs
        settings = {"own": self._own, "best": self.finished[best]["settings"]}
        return [
            self._trial(chosen, TRIAL_SEED + number, f"{name}{number}", epochs)
            for name, chosen in settings.items()
            for number in numbers
        ]

    def confirm(self, runs: Sequence[RunSpec], tried: Sequence[Result]) -> None:
        """Add the results of `confirmation_runs`, and decide.

        Without a score for every run there is no gain. Then the recipe's own settings are replaced
        only if none of their runs has a score and all others have one.
        """
        best, half = self.best(), len(runs) // 2
        assert best, "there was something to confirm"
        scores = [self._scores_of(one) for one in tried]
        own = [one for one in scores[:half] if one is not None]
        candidate = [one for one in scores[half:] if one is not None]
        gain = None
        if len(own) == len(candidate) == half:
            gain = gain_of(
                self._difference(best), np.array(own), np.array(candidate), len(self.finished) - 1
            )
        replaced = gain.is_beyond_chance if gain else not own and len(candidate) == half
        self.confirmation = {
            "settings": dict(self.finished[best]["settings"]),
            "seeds": [run.seed for run in runs[:half]],
            "epochs": self.run.recipe.budget.epochs,
            "own": [self._metric(one) for one in scores[:half]],
            "best": [self._metric(one) for one in scores[half:]],
            **plain(gain),
            "replaced": replaced,
            "train_seconds": sum(one.metrics.get("train_seconds") or 0.0 for one, _ in tried),
        }

    def _difference(self, best: int) -> Array:
        """Return by how much a trial's rows were better than those of the recipe's own settings."""
        own, other = self._scores[0], self._scores[best]
        assert other is not None, "the best trial has scores"
        return other - own if own is not None else np.zeros_like(other)

    def _metric(self, scores: Array | None) -> float | None:
        return None if scores is None else self.sign * float(scores.mean())

    def winner(self) -> Settings:
        """Return the settings to train: the best trial's if these were confirmed, or else the own.

        Empty (the recipe's own settings are kept) if no trial has a validation score.
        """
        if self.best() is None:
            return {}
        if self.confirmation and self.confirmation["replaced"]:
            return dict(self.confirmation["settings"])
        return dict(self._own)

    def summary(self) -> dict[str, Any]:
        """Return the trials, their cost, the grid and the winner as JSON values for the record."""
        confirmed = self.confirmation or {"train_seconds": 0.0}
        return {
            "trials": self.finished,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "chosen": self.winner(),
            "confirmation": self.confirmation,
            "select_by": self.run.recipe.selection_metric,
            "fraction": self.run.recipe.tuning.fraction,
            "epochs": self.epochs,
            "train_seconds": sum(trial["train_seconds"] or 0.0 for trial in self.finished)
            + confirmed["train_seconds"],
        }


def tune(runs: Mapping[Key, RunSpec], trials: int, run: RunTrials) -> dict[Key, Search]:
    """Search the hyperparameters of `runs`; return the searches by the same keys.

    In each round `run` trains one trial of every method and returns their records with the
    predictions for the validation rows. The last round confirms the best settings.
    """
    searches = {key: Search(run, trials) for key, run in runs.items()}
    for _ in range(trials):
        asked = {key: trial for key, one in searches.items() if (trial := one.ask()) is not None}
        tried = run(list(asked.values())) if asked else []
        for (key, trial), result in zip(asked.items(), tried, strict=True):
            searches[key].tell(trial, result)
    waiting = {key: more for key, one in searches.items() if (more := one.confirmation_runs())}
    _confirm(searches, waiting, run)
    return searches


def _confirm(
    searches: Mapping[Key, Search], waiting: Mapping[Key, Sequence[RunSpec]], run: RunTrials
) -> None:
    """Train the runs of all confirmations at once, and tell the searches."""
    if not waiting:
        return
    results = iter(run([one for runs in waiting.values() for one in runs]))
    for key, runs in waiting.items():
        searches[key].confirm(runs, [next(results) for _ in runs])


def with_tuned_settings(run: RunSpec, search: Search) -> RunSpec:
    """Return the run with the chosen hyperparameters and the summary of the search."""
    return replace(run, method=replace(run.method, **search.winner()), tuning=search.summary())


def tuning_note(search: Search) -> str:
    """Format a finished search as one line for the notes under the table."""
    return f"{search.run.method.title}: {outcome_text(search.summary())}"


def tuning_notes(searches: Mapping[tuple[str, str], Search]) -> list[str]:
    """Return each search's line, then a line a recipe with the expected best of fewer trials."""
    by_recipe: dict[str, dict[str, dict[str, Any]]] = {}
    for one in searches.values():
        by_recipe.setdefault(one.run.recipe.name, {})[one.run.method.title] = one.summary()
    lines = [f"tuned: {tuning_note(one)}" for one in searches.values()]
    return lines + [f"tuning: {line}" for one in by_recipe.values() if (line := curve_note(one))]


def with_predictions(store: Store, records: Sequence[Record]) -> list[Result]:
    """Return the records with their predictions; None where there are none or unreadable ones."""
    predictions, _ = read_predictions(store, records)
    return [(record, predictions.get(record.fingerprint)) for record in records]
