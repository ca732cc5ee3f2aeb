"""Columns with several labels a row: what is read, and one clear line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import data_spec, write_csv
from peft_methods.data import splits
from peft_methods.data.raw import RawData, RawTable
from peft_methods.tasks.registry import TASKS
from peft_methods.tasks.set_checks import rarest_labels
from peft_methods.tasks.set_labels import LabelSets, parse_label_sets
from peft_methods.utils.errors import DataError

TASK = TASKS["multilabel"]
SPEC = data_spec("emotions")
LISTS: list[Any] = [["joy"], ["anger", "joy"], [], ["fear"], ["fear", "joy"], ["anger"]]
FLAGS = [(0, 0, 1), (1, 0, 1), (0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 0)]


def parse(train: list[Any], test: list[Any] | None = None, **names: tuple[str, ...]) -> LabelSets:
    tables = {"train": RawTable({"labels": train})}
    if test is not None:
        tables["test"] = RawTable({"labels": test})
    return parse_label_sets(RawData(tables, dict(names)), ("labels",), SPEC)


def test_lists_of_names_may_be_empty_and_repeat_a_label() -> None:
    found = parse([*LISTS, ["joy", "joy"]])
    assert found.names == ("anger", "fear", "joy")
    assert found.flags["train"] == [*FLAGS, (0, 0, 1)]
    assert found.notes == ()


@pytest.mark.parametrize("delimiter", [";", "|", ",", "; "])
def test_strings_are_divided_at_the_delimiter_that_occurs(delimiter: str) -> None:
    found = parse([delimiter.join(labels) for labels in LISTS])
    assert found.flags["train"] == FLAGS
    (note,) = found.notes
    assert f"is divided at {delimiter.strip()!r} into labels; its empty value counts as" in note


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_lists_written_as_strings_are_read(write: Any) -> None:
    assert parse([write(labels) for labels in LISTS]).flags["train"] == FLAGS
    with pytest.raises(DataError, match=r'is \'\["joy",\]x\]\': a list should be written as'):
        parse([*map(write, LISTS), '["joy",]x]'])


def test_ids_get_the_names_that_the_data_set_declares() -> None:
    ids = [[2], [0, 2], [], [1], [1, 2], [0]]
    found = parse(ids, labels=("anger", "fear", "joy", "grief"))
    assert (found.names, found.flags["train"]) == (("anger", "fear", "joy"), FLAGS)
    assert found.notes == ("no train row has 1 of the declared labels: grief",)
    assert parse(ids).names == ("0", "1", "2")
    assert parse(["2", "0,2", "", "1", "1,2", "0"]).names == ("0", "1", "2")


def test_equally_long_rows_of_0_and_1_say_which_labels_a_row_has() -> None:
    found = parse([list(map(float, row)) for row in FLAGS])
    assert (found.names, found.flags["train"]) == (("label 1", "label 2", "label 3"), FLAGS)
    assert "has 3 values of 0 or 1 in every row" in found.notes[0]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["joy", "fear", "joy"], None, r"one label in every row, such as 'joy'.*text_classif"),
        ([0, 1, 2], None, r"row 0 of train is 0: it should be a list of labels, \[\] for none"),
        ([["joy"], None], None, r"row 1 of train is empty\. Give a list without labels, \[\]"),
        ([["joy"], [["fear"]]], None, r"row 1 of train has a list within its list \(\['fear'\]\)"),
        ([["joy"], ["fear", ""]], None, r"row 1 of train has an empty label \(''\)"),
        ([["joy"], [1.5]], None, r"has 1\.5: a label should be a name or a whole number"),
        ([["joy"], [-100]], None, r"has -100, which marks tokens or rows without a label"),
        ([["joy"], ["joy"], []], None, r"only the label 'joy' in all train rows; several"),
        ([[], []], None, r"has no label in all train rows"),
        (LISTS, [["joy"], ["awe"]], r"row 1 of test has the label 'awe', which no train row has"),
        ([[f"{i}"] for i in range(9)], None, r"9 different labels in 9 train rows; is data\.label"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(
    train: list[Any], test: list[Any] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse(train, test)
    assert "\n" not in str(caught.value)


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(DataError, match=r"has the label 3 \(grief\), which no train row has"):
        parse([[0], [1, 2], [2]], [[3]], labels=("anger", "fear", "joy", "grief"))


def of_columns(tmp_path: Path, label: str | None, **columns: list[Any]) -> Any:
    rows = [
        {"text": f"text {i}", **{name: values[i % len(values)] for name, values in columns.items()}}
        for i in range(40)
    ]
    folder = write_csv(tmp_path, train=rows[:30], test=rows[30:])
    return splits.load(data_spec(folder, "all", 6, "all", label=label), TASK)


@pytest.mark.parametrize("written", [(0, 1), (False, True), ("no", "Yes")])
def test_columns_of_0_and_1_are_labels(tmp_path: Path, written: tuple[Any, Any]) -> None:
    off, on = written
    data = of_columns(tmp_path, "toxic, obscene", toxic=[off, on, on], obscene=[on, off])
    assert data.facts.label_names == ("toxic", "obscene")
    assert data.splits["test"].labels.count((1, 1)) > 0


@pytest.mark.parametrize(
    ("value", "message"),
    [(2, r"is 2: with several columns"), (-1, r"-1 marks rows whose labels are hidden")],
)
def test_other_values_of_such_columns_are_refused(tmp_path: Path, value: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        of_columns(tmp_path, "toxic,obscene", toxic=[0, 1, value], obscene=[1, 0])


def test_a_label_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train row has the label 'threat', so it cannot be"):
        of_columns(tmp_path, "toxic,threat", toxic=[0, 1, 1], threat=[0])


def test_splits_in_which_all_rows_are_alike_are_refused(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "labels": ["a;b", "b", "a"][i % 3]} for i in range(30)]
    same = [{"text": f"other {i}", "labels": "a;b"} for i in range(12)]
    with pytest.raises(DataError, match=r"all 10 rows of the test split have 'a' and 'b'"):
        splits.load(data_spec(write_csv(tmp_path, train=rows, test=same)), TASK)


def test_rare_labels_are_spread_over_the_splits(tmp_path: Path) -> None:
    assert rarest_labels([(1, 1, 0), (1, 0, 0), (0, 0, 0), (1, 0, 1), (0, 1, 0)]) == [1, 0, 3, 2, 1]
    rows = [
        {"text": f"text {i}", "labels": ["a"] * (i % 2) + ["rare"] * (i % 20 == 0)}
        for i in range(400)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = splits.load(data_spec(tmp_path, 200, 100, 100, sizes="at_most"), TASK)
    rare = data.facts.label_names.index("rare")
    counts = {name: sum(row[rare] for row in t.labels) for name, t in data.splits.items()}
    assert counts == {"train": 10, "validation": 5, "test": 5}


def test_a_label_near_a_known_one_is_named() -> None:
    with pytest.raises(DataError, match=r"the label 'angr', .*\. Did you mean 'anger'\?"):
        parse(LISTS, [["angr"]])


def test_rows_that_are_divided_in_another_way_are_refused() -> None:
    with pytest.raises(
        DataError, match="row 2 of train has 'joy,fear', which ',' divides into labels of other"
    ):
        parse(["joy;anger", "fear", "joy,fear"])
    assert parse(["joy;a, b", "fear", "joy;fear;a, b"] * 2).names == ("a, b", "fear", "joy")


def test_columns_of_0_and_1_without_a_setting_name_the_way(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no label column .* It may name several, separated by commas\."
    ) as caught:
        of_columns(tmp_path, None, toxic=[0, 1], mild=[1, 0])
    assert caught.value.setting == "data.label"
