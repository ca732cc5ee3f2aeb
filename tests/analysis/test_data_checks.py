"""Rules on a user's own data: order of rows, how many were used, labels that mean another thing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from builders import CLASS_COUNTS, make_record
from peft_methods.analysis import checks
from peft_methods.analysis.checks.rule import Finding
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.record import Record
from peft_methods.runs.spec import run_specs


def found(rule: str, *records: Record) -> list[Finding]:
    return [one for one in checks.run_checks(records) if one.rule == rule]


def in_order(runs: int, *counts: int) -> list[Finding]:
    data = {
        "source_counts": {"train": list(counts)},
        "source_label_runs": {"train": runs},
        "majority": 0.5,
    }
    return found("V108", make_record(data=data))


@pytest.mark.parametrize("counts", [(1,) * 12, (31, 1), (60, 2), (5, 5)])
def test_v108_accepts_an_order_that_chance_gives(counts: tuple[int, ...]) -> None:
    """One row a class is always in blocks, and a single row of a rare class often is."""
    assert in_order(len(counts), *counts) == []


@pytest.mark.parametrize("counts", [(20, 20), (200, 5), (6, 6, 6)])
def test_v108_reports_rows_that_are_sorted(counts: tuple[int, ...]) -> None:
    (finding,) = in_order(len(counts), *counts)
    assert "sorted by label" in finding.evidence
    assert in_order(len(counts) + 1, *counts) == []


def test_v108_names_a_part_of_the_source_once() -> None:
    (finding,) = found("V108", own_data(source_label_runs=dict.fromkeys(CLASS_COUNTS, 2)))
    assert finding.severity == "note"
    assert finding.evidence.startswith("the source's 214 rows of train are sorted by label, in 2")


def own_data(*settings: str, **facts: Any) -> Record:
    """Return the record of a run on replaced data: 212 rows in one file, unless `facts` differ."""
    recipe = load_recipe("embedded", ["data.test=500", *settings], data="reviews")
    (run, *_) = run_specs(recipe, make_record().spec.method, "cpu")
    data = {
        "majority": 0.5,
        "fingerprint": "f",
        "class_counts": {"train": [64, 64], "validation": [21, 21], "test": [21, 21]},
        "source_counts": {name: [107, 107] for name in CLASS_COUNTS},
        "drawn_from": dict.fromkeys(CLASS_COUNTS, "train"),
        "removed": {"repeated": 2, "train_also_in_test": 0},
    }
    return make_record(spec=run, data={**data, **facts})


def test_v109_says_how_many_rows_were_used_and_why() -> None:
    (finding,) = found("V109", own_data())
    assert finding.severity == "note"
    assert finding.evidence == (
        "128 train / 42 validation / 42 test rows used of at most 400 train / 150 validation / "
        "500 test; the source has 214 train rows (left out: repeated: 2); without a validation and "
        "a test split, these rows were cut from train: drawn by data.seed, with the same share of "
        "each class"
    )


def test_v109_is_silent_where_a_recipe_got_what_it_asked_for() -> None:
    own = {name: name for name in CLASS_COUNTS}
    assert found("V109", own_data(class_counts=CLASS_COUNTS, drawn_from=own)) == []
    assert found("V109", own_data("data.sizes=exact")) == []
    assert found("V109", make_record()) == []


def test_v109_counts_one_table_once() -> None:
    pools = dict.fromkeys(CLASS_COUNTS, "all")
    (finding,) = found("V109", own_data(drawn_from=pools))
    assert "the source has 214 rows (left out" in finding.evidence
    assert "cut from train" not in finding.evidence


MORE = 'set data.train = "all" to train on all of them'


def test_v109_proposes_all_rows_only_where_the_limit_left_rows_out() -> None:
    own = {name: name for name in CLASS_COUNTS}
    many = {"source_counts": {name: [400, 400] for name in CLASS_COUNTS}, "drawn_from": own}
    (finding,) = found("V109", own_data(class_counts=CLASS_COUNTS, **many))
    assert "data.train = 400 leaves out 398 train rows" in finding.evidence
    assert finding.advice == MORE
    (both,) = found("V109", own_data(class_counts={**CLASS_COUNTS, "test": [9, 9]}, **many))
    assert both.advice.startswith("add rows")
    assert both.advice.endswith(f"data.test; {MORE}")
    (short,) = found("V109", own_data())
    assert MORE not in short.advice
    assert found("V109", own_data("model.weights=random", class_counts=CLASS_COUNTS, **many)) == []
    (cut,) = found(
        "V109",
        own_data(
            class_counts=CLASS_COUNTS,
            source_counts={name: [530, 530] for name in CLASS_COUNTS},
            removed={"repeated": 1, "train_also_in_test": 2, "validation_also_in_test": 3},
        ),
    )
    assert "data.train = 400 leaves out 7 train rows" in cut.evidence


def stored(record: Record) -> Record:
    """Return the record as the store gives it back: with all keys in alphabetical order."""
    return replace(record, data=json.loads(json.dumps(record.data, sort_keys=True)))


def test_findings_on_reused_and_new_runs_are_the_same() -> None:
    record = own_data(
        removed={"repeated": 2, "validation_also_in_test": 1, "train_also_in_test": 3},
        truncated={"train": 0.5, "validation": 0.4, "test": 0.3},
        overlap={name: {"within": 0.5, "around": 0.5} for name in ("validation", "test")},
        source_label_runs={"train": 2, "validation": 2, "test": 2},
        source_counts={name: [400, 40] for name in CLASS_COUNTS},
        merged_labels={"spam": ["Spam"], "ham": ["HAM"]},
    )
    for rule in ("V103", "V104", "V105", "V107", "V108", "V109", "V110"):
        new, reused = found(rule, record), found(rule, stored(record))
        assert [one.evidence for one in new] == [one.evidence for one in reused] != []


def test_v110_names_the_labels_that_were_merged() -> None:
    (finding,) = found("V110", own_data(merged_labels={"spam": ["SPAM", "Spam "]}))
    assert finding.severity == "warning"
    assert finding.evidence == "'SPAM', 'Spam ' count as 'spam'"


def scored(accuracy: float, validation: float, test: list[int]) -> Record:
    metrics = {"accuracy": accuracy, "validation_accuracy": validation}
    epochs = ({"epoch": 1.0, "train_loss": 0.1, "validation_accuracy": validation},)
    data = {"majority": 0.5, "class_counts": {**CLASS_COUNTS, "test": test}}
    return make_record(metrics=metrics, epochs=epochs, data=data, best_epoch=1)


def test_labels_coded_the_other_way_in_test_are_named_as_the_cause() -> None:
    for rule in ("V301", "V306"):
        (finding,) = found(rule, scored(0.0, 1.0, [50, 50]))
        assert "the test labels seem to be coded the other way" in finding.advice
        assert "learning rate" not in finding.advice


@pytest.mark.parametrize(
    ("accuracy", "validation", "test"),
    [(0.48, 0.95, [50, 50]), (0.3, 0.5, [50, 50]), (0.25, 0.95, [30, 30, 30, 30])],
)
def test_other_bad_scores_have_the_usual_advice(
    accuracy: float, validation: float, test: list[int]
) -> None:
    (finding,) = found("V301", scored(accuracy, validation, test))
    assert "raise the learning rate" in finding.advice
