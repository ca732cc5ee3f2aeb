"""Score columns: what is read as a number, and one clear line for what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import data_spec, write_csv
from peft_methods.data import splits
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import DataError

TASK = TASKS["regression"]


def load(folder: Path, values: list[Any], column: str = "score", **more: Any) -> Any:
    folder.mkdir(exist_ok=True)
    rows = [{"text": f"text {i}", column: value} for i, value in enumerate(values)]
    for name in ("train", "test"):
        text = "\n".join(json.dumps({**row, "text": f"{name} {row['text']}"}) for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    sizes = {"train": "all", "validation": 4, "test": "all"}
    return splits.load(data_spec(folder, **{**sizes, **more}), TASK)


GOOD = [0.5 * (i % 9) for i in range(20)]


def with_one(value: Any, row: int = 3) -> list[Any]:
    return [*GOOD[:row], value, *GOOD[row + 1 :]]


@pytest.mark.parametrize("values", [GOOD, [f" {v} " for v in GOOD], [i % 3 for i in range(20)]])
def test_floats_strings_and_whole_numbers_are_scores(tmp_path: Path, values: list[Any]) -> None:
    data = load(tmp_path, values, train_subset=None)
    assert sorted(data.splits["test"].labels) == sorted(float(v) for v in values)
    assert data.facts.label_names == ("score",)
    assert sum(data.facts.class_counts["test"]) == 20
    assert data.facts.label_runs == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("high", r"'score' in row 3 of train is 'high': a score should be a number\..*task = "),
        ("1_000", r"is '1_000': a score should be a number"),
        ("3,5", r"is '3,5': write decimals with a point \(3\.5\)\."),
        (None, r"in row 3 of train is empty\. Remove the row or fill in its score"),
        ("n/a", r"is 'n/a': a score should be a number"),
        ("nan", r"is empty \('nan'\)"),
        ("", r"is empty\. Remove"),
        (float("inf"), r"is inf: a score should be a finite number"),
        (1e39, r"a score should be a finite number"),
        (True, r"is True: a score should be a number"),
        ([1.0, 2.0], r"in row 3 of train is \[1\.0, 2\.0\]: a score should be a number"),
        ({"a": 1}, r"in row 3 of train is {'a': 1}: a score should be a number"),
    ],
)
def test_values_that_are_no_score_are_named(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, with_one(value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], r"in row 3 of train has 1 score, row 0 of train has 2"),
        ([], r"in row 3 of train has 0 scores, row 0 of train has 2"),
        ([1.0, "x"], r"in row 3 of train, score 2, is 'x': a score should be a number"),
        ([1.0, [2.0]], r"score 2, is \[2\.0\]: a score should be a number"),
        (4.0, r"in row 3 of train is 4\.0, where other rows have a list"),
    ],
)
def test_lists_of_scores_have_the_same_length(tmp_path: Path, value: Any, message: str) -> None:
    pairs = [[v, 5 - v] for v in GOOD]
    data = load(tmp_path / "good", pairs)
    assert data.facts.label_names == ("score 1", "score 2")
    assert set(map(len, data.splits["train"].labels)) == {2}
    with pytest.raises(DataError, match=message):
        load(tmp_path / "bad", [*pairs[:3], value, *pairs[4:]])


def test_several_columns_of_scores_are_named_in_one_setting(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "Grammar": i % 5, "style": i % 4 / 2} for i in range(40)]
    folder = write_csv(tmp_path, train=rows[:30], test=rows[30:])
    sizes = {"train": "all", "validation": 5, "test": "all"}
    data = splits.load(data_spec(folder, **sizes, label="grammar, style"), TASK)
    assert data.facts.label_names == ("Grammar", "style")
    assert data.splits["test"].labels[0] in {(float(i % 5), i % 4 / 2) for i in range(30, 40)}
    with pytest.raises(DataError, match=r"no column 'stile'\. Did you mean 'style'.*separated by"):
        splits.load(data_spec(folder, **sizes, label="grammar,stile"), TASK)
    with pytest.raises(DataError, match=r"names a column twice"):
        splits.load(data_spec(folder, **sizes, label="style,style"), TASK)


@pytest.mark.parametrize(("value", "hint"), [(2.0, "the right column"), (-1.0, "test_split")])
def test_scores_that_are_all_equal_are_refused(tmp_path: Path, value: float, hint: str) -> None:
    rows = [{"text": f"text {i}", "score": GOOD[i % 20]} for i in range(40)]
    same = [{"text": f"other {i}", "score": value} for i in range(12)]
    with pytest.raises(DataError, match=rf"all 10 rows of the test split have .*{hint}"):
        splits.load(data_spec(write_csv(tmp_path / "a", train=rows, test=same)), TASK)
    with pytest.raises(DataError, match=r"of the train split have the same 'score'"):
        splits.load(
            data_spec(write_csv(tmp_path / "b", train=same * 1 + same_more(value), test=rows)), TASK
        )


def same_more(value: float) -> list[dict[str, object]]:
    return [{"text": f"more {i}", "score": value} for i in range(30)]


def test_splits_cut_from_one_file_have_alike_scores(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "similarity": i / 100} for i in range(1000)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = data_spec(tmp_path, 500, 100, 400, sizes="at_most")
    for table in splits.load(spec, TASK).splits.values():
        assert sum(table.labels) / len(table) == pytest.approx(5.0, abs=0.15)
