"""Rules on records of real runs: a planted fault in the data or the recipe, and a sound run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builders import TASK, make_rows, run_here, runs
from peft_methods.analysis import checks
from peft_methods.runs.record import Record
from peft_methods.utils.errors import DataError

Rows = Sequence[dict[str, object]]
Run = Callable[..., Record]
SIZES = ("data.train=80", "data.validation=20", "data.test=40", "budget.seeds=1")


@pytest.fixture
def run(tiny_recipe: Path, tmp_path: Path) -> Run:
    """Train one seed of a method for the default two epochs, with changed settings or rows."""
    made: list[Path] = []

    def train(method: str, *settings: str, rows: dict[str, Rows] | None = None) -> Record:
        work = tmp_path / f"run{len(made)}"
        made.append(work)
        source = write(work / "data", rows) if rows else None
        own = [f"data.source={source}"] if source else []
        (spec,) = runs(tiny_recipe, method, *SIZES, *own, *settings)
        return run_here(spec, work)[0]

    return train


def write(folder: Path, rows: dict[str, Rows]) -> Path:
    folder.mkdir(parents=True)
    for split, part in rows.items():
        text = "\n".join(map(json.dumps, part))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def evidence(rule: str, *records: Record) -> list[str]:
    return [one.evidence for one in checks.run_checks(records) if one.rule == rule]


RULES = ("V101", "V108", "V204", "V208", "V301", "V306", "V504", "V505")


@pytest.mark.slow
def test_sound_runs_of_two_epochs_have_no_finding(run: Run) -> None:
    more = ("data.train=200", "data.validation=40", "data.test=60")
    records = run("full", *more), run("lora", *more)
    assert {one.rule for one in checks.run_checks(records)}.isdisjoint(RULES)


@pytest.mark.slow
def test_v208_and_v204_report_a_rate_that_trains_nothing(run: Run) -> None:
    record = run("lora", "methods.lora.learning_rate=1e-9")
    (constant,) = evidence("V208", record)
    assert "in 2 epochs" in constant
    assert len(evidence("V204", record)) == 1


@pytest.mark.slow
def test_v204_reports_training_that_diverges(run: Run) -> None:
    """The rate rises to a far too high one until the last step."""
    high = ("methods.full.learning_rate=1", "budget.warmup_ratio=0.99", "budget.epochs=4")
    record = run("full", *high)
    assert record.status == "ok"
    assert [one for one in evidence("V204", record) if "in the best" in one]


def flipped(rows: Rows) -> list[dict[str, Any]]:
    return [{**row, "label": 1 - int(str(row["label"]))} for row in rows]


@pytest.mark.slow
def test_v306_compares_the_training_accuracy_with_the_test(run: Run) -> None:
    rows = make_rows(160)
    sound = run("full", "budget.epochs=3", rows={"train": rows[:120], "test": rows[120:]})
    assert evidence("V306", sound) == []
    coded = run("full", "budget.epochs=3", rows={"train": rows[:120], "test": flipped(rows[120:])})
    assert any(one.startswith("training accuracy") for one in evidence("V306", coded))


@pytest.mark.slow
def test_v301_reports_a_constant_prediction_that_suits_the_test_rows(run: Run) -> None:
    """Train is balanced, three in four test rows are of one class: the score is 0.25 or 0.75."""
    rows = make_rows(240)
    for label in (0, 1):
        often = [row for row in rows[120:] if row["label"] == label][:30]
        test = [*often, *[row for row in rows[120:] if row["label"] != label][:10]]
        settings = ("methods.lora.learning_rate=1e-9", "data.test=40")
        record = run("lora", *settings, rows={"train": rows[:120], "test": test})
        assert record.data["majority"] == 0.75
        assert len(evidence("V301", record)) == 1


@pytest.mark.slow
def test_v504_reports_a_rate_near_that_of_full_fine_tuning(run: Run) -> None:
    full, near = run("full"), run("lora", "methods.lora.learning_rate=6e-3")
    assert evidence("V504", full, near) == [
        "learning rate 0.006, 1.5 times that of full fine-tuning"
    ]


@pytest.mark.slow
def test_v505_reports_runs_of_other_precisions(run: Run) -> None:
    full, half = run("full"), run("lora", "budget.precision=bf16")
    assert evidence("V505", full, half) == ["precision bf16, the others' fp32"]


@pytest.mark.slow
def test_v108_reports_a_source_that_is_sorted_by_label(run: Run) -> None:
    rows = make_rows(160)
    by_label = sorted(rows[:120], key=lambda row: int(str(row["label"])))
    record = run("lora", rows={"train": by_label, "test": rows[120:]})
    assert evidence("V108", record) == [
        "the source's 120 rows of train are sorted by label, in 2 blocks of one class each; this "
        "run shuffled them"
    ]
    assert record.data["label_runs"]["train"] > 2


@pytest.mark.slow
def test_v101_reports_one_class_where_a_task_does_not_refuse_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(240)
    one = [row for row in rows[120:] if row["label"] == 1][:40]
    with pytest.raises(DataError, match="the test split has only one class"):
        run("lora", rows={"train": rows[:120], "test": one})
    monkeypatch.setattr(type(TASK), "check_splits", lambda *_: None)
    record = run("lora", rows={"train": rows[:120], "test": one})
    assert evidence("V101", record) == ["all 40 rows of test are of one class"]
