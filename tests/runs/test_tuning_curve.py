"""The expected best of n trials: exact, and shown in text and in the HTML report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import classes_of, evaluated_record, report_html, runs, trial_record
from chart_builders import tuning_of
from peft_methods.runs import tuning
from peft_methods.runs.results import Result
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store
from peft_methods.runs.tuning_curve import counts_shown, curve_note, curve_of, expected_best


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([1, -1]))
def test_curve_is_the_mean_best_of_all_subsets(scores: list[float], sign: int) -> None:
    best = max if sign > 0 else min
    by_hand = [
        mean(best(some) for some in combinations(scores, n)) for n in range(1, len(scores) + 1)
    ]
    assert expected_best(scores, sign) == pytest.approx(by_hand)


def test_curve_of_many_trials_is_exact() -> None:
    """The expected highest of n of the numbers 1 to N is n (N + 1) / (n + 1)."""
    curve = expected_best(list(range(1, 201)))
    assert curve == pytest.approx([n * 201 / (n + 1) for n in range(1, 201)])


def test_failed_trials_are_left_out() -> None:
    assert len(curve_of(tuning_of(1e-3, 3))) == 5  # of six trials
    assert curve_of({"trials": [{"selection": None}], "select_by": "accuracy"}) == []


@pytest.mark.parametrize(
    ("most", "counts"), [(0, []), (1, [1]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])]
)
def test_powers_of_two_and_the_whole_search_are_shown(most: int, counts: list[int]) -> None:
    assert counts_shown(most) == counts


def search_of(scores: Sequence[float | None]) -> dict[str, Any]:
    return {"trials": [{"selection": score} for score in scores], "select_by": "accuracy"}


def test_note_has_every_method_on_one_line() -> None:
    found = {"LoRA": search_of([0.5, 0.7, 0.9]), "IA3": search_of([0.6, None, 0.8])}
    assert curve_note(found) == (
        "expected best validation accuracy of 1, 2, 3 trials: "
        "LoRA 70.0 %, 83.3 %, 90.0 %; IA3 70.0 %, 80.0 %"
    )
    assert curve_note({"LoRA": search_of([0.5])}).startswith(
        "expected best validation accuracy of 1 trial: LoRA 50.0 %"
    )
    assert curve_note({"LoRA": search_of([None])}) == ""


def test_notes_of_tuning_end_with_the_curve(tiny_recipe: Path) -> None:
    def train(asked: Sequence[RunSpec]) -> list[Result]:
        return [(trial_record(one, 0.5), classes_of(np.array([1.0, 0.0]))) for one in asked]

    specs = {("tiny", name): runs(tiny_recipe, name)[0] for name in ("lora", "bitfit")}
    notes = tuning.tuning_notes(tuning.tune(specs, 2, train))
    assert [note.partition(":")[0] for note in notes] == ["tuned", "tuned", "tuning"]
    assert "of 1, 2 trials: LoRA 50.0 %, 50.0 %; BitFit 50.0 %, 50.0 %" in notes[-1]


def test_html_report_shows_the_curve_of_tuned_methods(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    store.prepare()
    for method in ("lora", "full"):
        record, predictions = evaluated_record(method, 0, 0.9)
        search = {**tuning_of(1e-3, 3), "train_seconds": 12.0} if method == "lora" else None
        store.write(replace(record, fingerprint=f"run-{method}", tuning=search), predictions)
    page = report_html(tmp_path / "out", tmp_path / "run")
    part = page.partition('<section id="embedded-1-tuning">')[2].partition("</section>")[0]
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)', part) == [
        "Expected best validation accuracy",
        *("1 trial", "2 trials", "4 trials", "5 trials"),
    ]
    assert "75.0 %" in part  # the best of all trials
    assert f"{100 * (0.73 + 0.61 + 0.68 + 0.75 + 0.55) / 5:.1f} %" in part
    assert "Full fine-tuning" not in part
    assert "LoRA: learning_rate 0.001 → 0.003, gain not measured; 6 trials of 1 epoch" in part
    assert "12.0 s of training on validation data" in part
    assert "#embedded-1-tuning" in page
