"""Tuning gives every method the same number of trials, chooses the best and records all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import runs
from peft_methods.analysis import checks
from peft_methods.api import compare
from peft_methods.runs import tuning
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.runs.tuning import RATE, TRIAL_SEED, Search, grid_of


def trial_record(run: RunSpec, selection: float | None, loss: float = 0.5) -> Record:
    """Build a trial's record with this validation score; None for a failed trial."""
    if selection is None:
        return record_without_result(run, "failed", "an error")
    epochs = (
        {
            "epoch": 1,
            "train_loss": 1.0,
            "validation_loss": loss,
            "validation_accuracy": selection,
            "selection": selection,
        },
    )
    return Record(run, "ok", run.key, metrics={"train_seconds": 2.0}, epochs=epochs, best_epoch=1)


def searched(run: RunSpec, trials: int, quality: object) -> Search:
    def train(trials: object) -> list[Record]:
        return [trial_record(one, quality(one.method)) for one in trials]  # type: ignore[attr-defined, operator]

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
    assert winner.tuning["train_seconds"] == 18.0
    assert (
        f"learning_rate 0.05 → {best:.3g} (validation accuracy 0.500 → 0.900); 9 trials of 1 epoch"
        in tuning.tuning_note(search)
    )


def test_winner_of_equal_trials_has_the_lower_validation_loss(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    search = Search(run, 2)
    for loss in (0.7, 0.6):
        trial = search.ask()
        search.tell(trial, trial_record(trial, 0.8, loss))
    assert search.winner() == search.finished[1]["settings"]


def test_failed_trials_are_counted_and_never_chosen(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    own = run.method.learning_rate
    search = searched(run, 5, lambda method: 0.7 if method.learning_rate == own else None)
    assert search.winner() == {RATE: own}
    assert "the recipe's own settings are the best" in tuning.tuning_note(search)
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
@given(st.integers(1, 9), st.dictionaries(st.integers(0, 8), st.floats(0, 1)))
def test_every_search_has_the_given_trials_and_chooses_the_best(
    tiny_recipe: Path, trials: int, quality: dict[int, float]
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    rates = grid_of(run.recipe, run.method)[RATE]
    search = searched(
        run, trials, lambda method: quality.get(rates.index(method.learning_rate), 0.0)
    )
    assert len(search.finished) == trials
    assert all(trial["settings"][RATE] in rates for trial in search.finished)
    assert len({trial["settings"][RATE] for trial in search.finished}) == trials  # no repeats
    assert quality.get(rates.index(search.winner()[RATE]), 0.0) == max(
        trial["selection"] for trial in search.finished
    )


def test_tuned_comparison_reports_its_trials(tiny_recipe: Path, tmp_path: Path) -> None:
    """Trains real runs: tuning corrects a learning rate that is a thousand times too low.

    Only the final runs predict the test rows.
    """
    wrong = ["methods.lora.learning_rate=5e-5", "tuning.reach=1000.0", "tuning.points=3"]
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
    assert {len(record.tuning["trials"]) for record in by_method.values() if record.tuning} == {4}
    assert len([note for note in done.notes if note.startswith("tuned: ")]) == 2
    assert "V209" in {finding.rule for finding in done.findings()}  # the grid's highest value
    stored, _ = Store(tmp_path).records()
    # The store also has the trials' records, which the rules ignore.
    assert len(stored) > len(done.records)
    assert {str(finding) for finding in checks.run_checks(stored)} == {
        str(finding) for finding in done.findings()
    }
    predictions = {path.stem for path in tmp_path.glob("*.npz")}
    assert predictions == {record.fingerprint for record in done.records}
