"""Fair tuning: every method gets as many trials, on validation data, at the same share of the budget. Test rows are not looked at.

Trials are chosen by Optuna's tree-structured Parzen estimator (Akiba et al. 2019, arXiv:1907.10902; Bergstra et al. 2011). The
first is the recipe's own setting, so that tuning can only confirm it or find better on validation data.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from peft_methods.cells import Cell
from peft_methods.errors import OptionError, unknown
from peft_methods.methods import METHODS, Method
from peft_methods.methods.selection import with_methods
from peft_methods.recipe import Recipe
from peft_methods.records import Record

RATE = "learning_rate"
PATIENCE = 100  # suggestions of what was tried before, then the grid counts as used up
TRIAL_SEED = 1000  # no seed of the comparison itself, unless someone asks for it
Settings = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
Run = Callable[[Sequence[Cell]], list[Record]]


def check_possible(recipes: Sequence[Recipe]) -> None:
    """Raise `OptionError` where nothing can be tuned: no Optuna, no quality to tune by, knobs that do not exist or fit."""
    if importlib.util.find_spec("optuna") is None:
        raise OptionError("--peft-tune needs Optuna: pip install 'peft-methods[tune]'.")
    for recipe in map(with_methods, recipes):
        if not recipe.has_quality:
            raise OptionError(
                f"--peft-tune: recipe {recipe.name!r} has random weights, so there is no quality to tune by."
            )
        for name in recipe.tuning.knobs:
            if name not in recipe.methods:
                raise OptionError(
                    f"{recipe.name}: {unknown('method', name, recipe.methods)} (in [tuning.knobs])"
                )
            grid_of(recipe, METHODS.create(name, recipe.methods[name], recipe.name, recipe))


def grid_of(recipe: Recipe, method: Method) -> dict[str, tuple[Any, ...]]:
    """The values to try of each hyperparameter: the rate's grid, and the knobs that the recipe opens. Raises `OptionError`."""
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
            raise OptionError(
                f"{recipe.name}, [tuning.knobs.{method.name}]: {unknown('hyperparameter', name, set(own) - {RATE})}"
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
    """One method's trials. `cell` is the one whose hyperparameters are searched for."""

    cell: Cell
    trials: int
    grid: dict[str, tuple[Any, ...]] = field(init=False)
    told: list[dict[str, Any]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.grid = grid_of(self.cell.recipe, self.cell.method)
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=max(2, self.trials // 3))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        own = asdict(self.cell.method)
        self._study.enqueue_trial(
            {name: values.index(own[name]) for name, values in self.grid.items()}
        )
        self._asked: Any = None

    @property
    def epochs(self) -> int:
        """What a trial trains."""
        return max(1, round(self.cell.recipe.tuning.fraction * self.cell.recipe.budget.epochs))

    def ask(self) -> Cell:
        """The next trial: settings not tried before, as long as there are any left in the grid."""
        chosen = self._suggested()
        for _ in range(PATIENCE):
            known = next((trial for trial in self.told if trial["settings"] == chosen), None)
            if known is None:
                break
            self._study_told(known["selection"])
            chosen = self._suggested()
        recipe = replace(
            self.cell.recipe, budget=replace(self.cell.recipe.budget, epochs=self.epochs)
        )
        method = replace(self.cell.method, **chosen)
        label = f"trial{len(self.told) + 1}"
        return replace(
            self.cell, recipe=recipe, method=method, seed=TRIAL_SEED, is_source=True, trial=label
        )

    def _suggested(self) -> Settings:
        self._asked = self._study.ask()
        return {
            name: values[self._asked.suggest_int(name, 0, len(values) - 1)]
            for name, values in self.grid.items()
        }

    def _study_told(self, value: float | None) -> None:
        import optuna

        self._study.tell(
            self._asked, value, state=optuna.trial.TrialState.FAIL if value is None else None
        )

    def tell(self, trial: Cell, record: Record) -> None:
        """What it came to. A trial that failed or could not be judged counts as tried and is never chosen."""
        best = (
            record.epochs[record.best_epoch - 1]
            if record.status == "ok" and record.best_epoch
            else {}
        )
        value = best.get("selection")
        self.told.append({
            "settings": {name: getattr(trial.method, name) for name in self.grid},
            "selection": value,
            "validation_loss": best.get("validation_loss"),
            "train_seconds": record.metrics.get("train_seconds"),
            "status": record.status,
            "message": record.message,
        })  # fmt: skip
        self._study_told(value)

    def winner(self) -> Settings:
        """The settings of the best trial, the lower validation loss where two are alike; the recipe's own if none could be judged."""
        judged = [trial for trial in self.told if trial["selection"] is not None]
        if not judged:
            return {}
        best = max(judged, key=lambda trial: (trial["selection"], -trial["validation_loss"]))
        return dict(best["settings"])

    def summary(self) -> dict[str, Any]:
        """For the record, as JSON values: the trials, what they cost, the grid, the winner."""
        tuning = self.cell.recipe.tuning
        return {
            "trials": self.told,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "chosen": self.winner(),
            "select_by": self.cell.recipe.data.select_by,
            "fraction": tuning.fraction,
            "epochs": self.epochs,
            "train_seconds": sum(trial["train_seconds"] or 0.0 for trial in self.told),
        }


def tune(cells: Mapping[Key, Cell], trials: int, run: Run) -> dict[Key, Search]:
    """Finished searches by the keys of `cells`. All methods' trials of a round run together; `run` gives their records."""
    searches = {key: Search(cell, trials) for key, cell in cells.items()}
    for _ in range(trials):
        asked = {key: search.ask() for key, search in searches.items()}
        records = run(list(asked.values()))
        for (key, trial), record in zip(asked.items(), records, strict=True):
            searches[key].tell(trial, record)
    return searches


def tuned(cell: Cell, search: Search) -> Cell:
    """The cell with the winner's hyperparameters, and how they were found."""
    return replace(cell, method=replace(cell.method, **search.winner()), tuning=search.summary())


def said_of(search: Search) -> str:
    """One line for under the table."""
    told, chosen, own = search.told, search.winner(), asdict(search.cell.method)
    failed = sum(trial["selection"] is None for trial in told)
    if not chosen:
        return f"{search.cell.method.title}: none of {len(told)} trials could be judged; the recipe's own settings were kept"
    changes = [
        f"{name} {_written(own[name])} → {_written(value)}"
        for name, value in chosen.items()
        if value != own[name]
    ]
    before, best = (
        told[0]["selection"],
        max(trial["selection"] for trial in told if trial["selection"] is not None),
    )
    gain = f" (validation {search.cell.recipe.data.select_by} {'–' if before is None else f'{before:.3f}'} → {best:.3f})"
    outcome = ", ".join(changes) + gain if changes else "the recipe's own settings are the best"
    return (
        f"{search.cell.method.title}: {outcome}; {len(told)} trials of {search.epochs} epoch{'s' * (search.epochs > 1)}"
        + (f", {failed} failed" if failed else "")
    )


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
