"""Label columns: spellings that are one class, and values that are none."""

from __future__ import annotations

from typing import Any

import pytest

from builders import data_spec
from peft_methods.tasks.class_labels import (
    NumberedLabels,
    note_on_delimiters,
    number_labels,
    parse_labels,
)
from peft_methods.utils.errors import DataError

SPEC = data_spec("reviews")


def numbered(
    train: list[Any], test: list[Any] | None = None, names: tuple[str, ...] | None = None
) -> NumberedLabels:
    raw = {"train": train} if test is None else {"train": train, "test": test}
    parsed = {split: parse_labels(values, "label", split, SPEC) for split, values in raw.items()}
    return number_labels(parsed, names, SPEC)


def test_labels_that_differ_in_case_or_blanks_are_one_class() -> None:
    found = numbered(["spam", "spam", "Spam ", "ham", " HAM", "ham"], ["SPAM", "ham"])
    assert found.names == ("ham", "spam")
    assert found.numbers == {"train": [1, 1, 1, 0, 0, 0], "test": [1, 0]}
    assert found.merged == {"spam": ("SPAM", "Spam "), "ham": (" HAM",)}


def test_the_name_is_the_most_frequent_spelling_without_blanks_around_it() -> None:
    assert numbered(["Sci  Fi ", "Sci  Fi ", "sci fi", "b", "b"]).names == ("Sci  Fi", "b")
    assert numbered(["A", "A", "b", "b"]).merged == {}


@pytest.mark.parametrize("value", ["NaN", "nan", " ", "", None, float("nan"), "<NA>"])
def test_missing_labels_are_refused_in_every_split(value: Any) -> None:
    with pytest.raises(DataError, match=r"'label' in row 1 of train is empty.*Remove the row"):
        numbered(["a", value, "b"])
    with pytest.raises(DataError, match=r"'label' in row 0 of test is empty"):
        numbered(["a", "b"], [value])


@pytest.mark.parametrize("value", [-100, "-100", -100.0])
def test_the_label_that_losses_ignore_is_refused_in_every_split(value: Any) -> None:
    with pytest.raises(DataError, match=r"row 0 of train is -100, which marks a row without a la"):
        numbered([value, 0, 1])
    with pytest.raises(DataError, match=r"row 1 of test is -100"):
        numbered([0, 1], [0, value])


def test_minus_one_is_a_class_where_train_has_it_and_else_hidden() -> None:
    assert numbered([-1, 1, 0, -1, 0, 1], [1, -1]).names == ("-1", "0", "1")
    with pytest.raises(DataError, match=r'no labels .* data\.test_split = "train"'):
        numbered([0, 1], [-1, -1])


@pytest.mark.parametrize("hidden", [[-1, -1], [-1, 0]])
@pytest.mark.parametrize("test", [None, [0, 1], [-1, -1]])
def test_a_validation_split_without_labels_is_never_proposed_as_test(
    hidden: list[int], test: list[int] | None
) -> None:
    splits = {"train": [0, 1, 0, 1], "validation": hidden}
    raw = {split: list[int | str](labels) for split, labels in splits.items()}
    if test is not None:
        raw["test"] = [*test]
    with pytest.raises(DataError, match=r"the validation split has no labels") as caught:
        number_labels(raw, None, SPEC)
    assert "remove it: validation rows are then cut from train" in str(caught.value)
    assert "test_split" not in str(caught.value)
    assert not caught.value.setting


@pytest.mark.parametrize("word", ["none", "NA", "null", "N/A"])
def test_words_that_look_like_missing_values_are_classes(word: str) -> None:
    assert word in numbered([word, "other", word, "other"]).names


@pytest.mark.parametrize(
    ("labels", "shown"),
    [(["joy;anger", "joy"], "joy;anger"), (["a|b", "a|c"], "a|b"), (["x; y", "z"], "")],
)
def test_a_note_names_classes_that_look_like_several_labels(labels: list[Any], shown: str) -> None:
    found = note_on_delimiters({"train": labels}, "label")
    assert len(found) == bool(shown)
    assert all(repr(shown) in note and "multilabel" in note for note in found)


def test_truth_values_get_names() -> None:
    assert numbered([True, False, True]).names == ("False", "True")


def test_declared_names_hold_where_some_classes_do_not_occur() -> None:
    names = ("world", "sports", "business")
    assert numbered([0, 2, 2, 0], names=names).names == ("world", "business")
    assert numbered([1, 3, 1, 3], names=names).names == ("1", "3")
