"""Tuning gives every method the same number of trials, chooses the best and records all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import classes_of, runs, trial_record
from peft_methods.analysis import checks
from peft_methods.api import compare
from peft_methods.runs import tuning
from peft_methods.runs.results import Result
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.runs.tuning import TRIAL_SEED, Search
from peft_methods.runs.tuning_grid import RATE, grid_of
from peft_methods.tasks.class_predictions import ClassPredictions

ROWS = 100


def answers(accuracy: float) -> ClassPredictions:
    """Return validation predictions with this accuracy, to 1 %."""
    return classes_of((np.arange(ROWS) < round(ROWS * accuracy)).astype(float))


def searched(run: RunSpec, trials: int, quality: Callable[[Any], float | None]) -> Search:
    """Tune; `quality` returns the validation accuracy of a run, whatever its seed."""

    def train(asked: Sequence[RunSpec]) -> list[Result]:
        found: list[Result] = []
        for one in asked:
            value = quality(one.method)
            found.append((trial_record(one, value), None if value is None else answers(value)))
        return found

    return tuning.tune({"it": run}, trials, train)["it"]


def test_grid_is_logarithmic_around_the_learning_rate_of_the_recipe(tiny_recipe: Path) -> None:
    run, *_ = runs(
        tiny_recipe, "lora", "tuning.points=5", "tuning.reach=100.0", "tuning.knobs.lora.rank=[2,8]"
    )
    grid = grid_of(run.recipe, run.method)
    assert grid[RATE] == pytest.approx((5e-4, 5e-3, 5e-2, 5e-1, 5.0))
    assert run.method.learning_rate in grid[RATE]
    assert grid["rank"] == (4, 2, 8)  # the recipe's own value is added first


def test_first_trial_uses_the_hyperparameters_of_the_recipe(tiny_recipe: Path) -> None:
    run, *_ = runs(
        tiny_recipe,
        "lora",
        "tuning.fraction=0.25",
        "budget.epochs=8",
        "tuning.knobs.lora.rank=[2,8]",
    )
    trial = Search(run, 3).ask()
    assert trial is not None
    assert asdict(trial.method) == asdict(run.method)
    assert (trial.recipe.budget.epochs, trial.seed, trial.role, trial.trial) == (
        2,
        TRIAL_SEED,
        "trial",
        "trial1",
    )
    assert trial.recipe.data == run.recipe.data
    assert trial.key != run.key


def test_tuning_finds_the_best_learning_rate_and_stores_it_in_the_run(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    best = grid_of(run.recipe, run.method)[RATE][6]
    search = searched(run, 9, lambda method: 0.9 if method.learning_rate == best else 0.5)
    winner = tuning.with_tuned_settings(run, search)
    assert winner.method.learning_rate == best
    assert winner.tuning is not None
    assert winner.tuning["chosen"] == {RATE: best}
    assert len(winner.tuning["trials"]) == 9
    assert winner.tuning["train_seconds"] == 30.0  # 9 trials and 6 runs to confirm
    note = tuning.tuning_note(search)
    assert f"learning_rate 0.05 → {best:.3g} (validation accuracy +" in note
    assert "points, 90 % interval +" in note
    assert "3 new seeds of 2 epochs); 9 trials of 1 epoch, the whole grid" in note


def test_a_small_lead_replaces_nothing_and_the_note_gives_gain_and_interval(
    tiny_recipe: Path,
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    own = run.method.learning_rate
    search = searched(run, 4, lambda method: 0.80 if method.learning_rate == own else 0.81)
    assert search.winner() == {RATE: own}
    assert tuning.with_tuned_settings(run, search).method == run.method
    note = tuning.tuning_note(search)
    assert "no setting beat the recipe's own beyond chance, so these were kept" in note
    assert re.search(
        r"accuracy [+-]\d\.\d points, 90 % interval -\d\.\d to \+\d\.\d, 3 new", note
    ), note


def test_the_best_trial_and_the_own_settings_are_trained_in_full_with_new_seeds(
    tiny_recipe: Path,
) -> None:
    run, *_ = runs(tiny_recipe, "lora", "budget.epochs=8", "tuning.seeds=2")
    own = run.method.learning_rate
    asked: list[RunSpec] = []

    def quality(one: RunSpec) -> float:
        return 0.5 if one.method.learning_rate == own else 0.9

    def train(more: Sequence[RunSpec]) -> list[Result]:
        asked.extend(more)
        return [(trial_record(one, quality(one)), answers(quality(one))) for one in more]

    search = tuning.tune({"it": run}, 2, train)["it"]
    best = asked[1].method.learning_rate
    assert [(one.method.learning_rate, one.seed, one.recipe.budget.epochs) for one in asked] == [
        (own, TRIAL_SEED, 4),
        (best, TRIAL_SEED, 4),
        (own, TRIAL_SEED + 1, 8),
        (own, TRIAL_SEED + 2, 8),
        (best, TRIAL_SEED + 1, 8),
        (best, TRIAL_SEED + 2, 8),
    ]
    assert {one.role for one in asked} == {"trial"}  # so that none predicts the test rows
    assert len({one.label for one in asked}) == 6
    confirmation = search.summary()["confirmation"]
    assert confirmation["own"] == [0.5, 0.5]
    assert confirmation["best"] == [0.9, 0.9]
    assert json.loads(json.dumps(confirmation)) == confirmation


def test_no_settings_are_trained_twice(tiny_recipe: Path) -> None:
    """A grid of three has three trials, however many were asked for."""
    run, *_ = runs(tiny_recipe, "lora", "tuning.points=3")
    search = searched(run, 8, lambda method: 0.5)
    assert [trial["settings"][RATE] for trial in search.finished] != []
    assert len({trial["settings"][RATE] for trial in search.finished}) == len(search.finished) == 3
    assert "3 trials of 1 epoch, the whole grid" in tuning.tuning_note(search)


def test_values_that_mean_the_same_are_tried_once(tiny_recipe: Path) -> None:
    run, *_ = runs(
        tiny_recipe,
        "lora",
        "tuning.knobs.lora.targets=[['query','value'],['query'],['query']]",
        "tuning.knobs.lora.rank=[4,4,8]",
    )
    grid = grid_of(run.recipe, run.method)
    assert grid["targets"] == (("query", "value"), ("query",))
    assert grid["rank"] == (4, 8)


@pytest.mark.parametrize(
    ("failing", "text"),
    [
        ("best", "not every run of 3 new seeds of 2 epochs gave a validation score"),
        ("own", "since the recipe's own settings gave no validation score with 3 new seeds"),
    ],
)
def test_settings_without_a_score_in_full_runs_are_not_chosen(
    tiny_recipe: Path, failing: str, text: str
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    own = run.method.learning_rate

    def train(asked: Sequence[RunSpec]) -> list[Result]:
        found: list[Result] = []
        for one in asked:
            is_own = one.method.learning_rate == own
            fails = one.seed > TRIAL_SEED and is_own == (failing == "own")
            value = None if fails else 0.5 if is_own else 0.9
            found.append((trial_record(one, value), None if value is None else answers(value)))
        return found

    search = tuning.tune({"it": run}, 2, train)["it"]
    assert (search.winner()[RATE] == own) == (failing == "best")
    assert text in tuning.tuning_note(search)


@pytest.mark.parametrize(("own", "best"), [(0.8, 0), (0.7, 2)])
def test_best_of_equal_trials_is_the_own_one_or_has_the_lower_validation_loss(
    tiny_recipe: Path, own: float, best: int
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    search = Search(run, 3)
    for value, loss in ((own, 0.8), (0.8, 0.7), (0.8, 0.6)):
        trial = search.ask()
        assert trial is not None
        search.tell(trial, (trial_record(trial, value, loss), answers(value)))
    assert search.best() == best
    assert bool(search.confirmation_runs()) == bool(best)


def test_failed_trials_are_counted_and_never_chosen(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    own = run.method.learning_rate
    search = searched(run, 5, lambda method: 0.7 if method.learning_rate == own else None)
    assert search.winner() == {RATE: own}
    assert "no trial was better than the recipe's own settings" in tuning.tuning_note(search)
    assert search.summary()["confirmation"] is None
    none = searched(run, 3, lambda method: None)
    assert none.winner() == {}
    assert asdict(tuning.with_tuned_settings(run, none).method) == asdict(run.method)
    assert "none of 3 trials has a validation score" in tuning.tuning_note(none)


def test_note_of_one_trial_is_singular(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    note = tuning.tuning_note(searched(run, 1, lambda method: None))
    assert "the only trial has no validation score" in note
    assert "; 1 trial of 1 epoch" in tuning.tuning_note(searched(run, 1, lambda method: 0.5))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.dictionaries(st.integers(0, 8), st.integers(0, 100)))
def test_every_search_has_the_given_trials_and_chooses_the_best(
    tiny_recipe: Path, trials: int, quality: dict[int, int]
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    rates = grid_of(run.recipe, run.method)[RATE]
    search = searched(
        run, trials, lambda method: quality.get(rates.index(method.learning_rate), 0) / 100
    )
    assert len(search.finished) == trials
    assert all(trial["settings"][RATE] in rates for trial in search.finished)
    assert len({trial["settings"][RATE] for trial in search.finished}) == trials  # no repeats
    best = search.best()
    assert best is not None
    assert search.finished[best]["selection"] == max(one["selection"] for one in search.finished)
    assert search.winner()[RATE] in (
        run.method.learning_rate,
        search.finished[best]["settings"][RATE],
    )


@pytest.mark.slow
def test_tuned_comparison_reports_its_trials(tiny_recipe: Path, tmp_path: Path) -> None:
    """Trains real runs: tuning corrects a learning rate that is a thousand times too low.

    Two epochs would not do: runs at the right rate reach 50 % to 80 % then, which may be chance.
    Only the final runs predict the test rows.
    """
    wrong = [
        "budget.epochs=6",
        "methods.lora.learning_rate=5e-5",
        "tuning.reach=1000.0",
        "tuning.points=3",
        "tuning.seeds=2",
    ]
    done = compare(
        str(tiny_recipe),
        methods=["lora", "head_only"],
        seeds=1,
        tune=4,
        settings=wrong,
        results=tmp_path,
        progress=False,
    )
    by_method = {record.method_name: record for record in done.records}
    lora = by_method["lora"]
    assert lora.status == "ok", lora.message
    assert lora.tuning is not None
    assert lora.spec.method.learning_rate == pytest.approx(5e-2) == lora.tuning["chosen"][RATE]
    assert {len(record.tuning["trials"]) for record in by_method.values() if record.tuning} == {3}
    assert len([note for note in done.notes if note.startswith("tuned: ")]) == 2
    assert "V209" in {finding.rule for finding in done.findings()}  # the grid's highest value
    stored, _ = Store(tmp_path).records()
    # The store also has the trials' records, which the rules ignore.
    assert len(stored) > len(done.records)
    assert {str(finding) for finding in checks.run_checks(stored)} == {
        str(finding) for finding in done.findings()
    }
    predictions = {path.stem for path in tmp_path.glob("*.npz")}
    assert predictions == {record.fingerprint for record in stored}
    for record in stored:
        found = Store(tmp_path).read_predictions(record)
        assert found is not None
        assert len(found.labels) == (30 if record.role == "trial" else 50)  # validation, test rows
        assert (record.quality is None) == (record.role == "trial")
