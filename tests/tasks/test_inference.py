"""The task that data are for, inferred from their columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from peft_methods.data.sources import read_source
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.prepare import prepare
from peft_methods.tasks.inference import infer_task
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.utils.errors import DataError, OptionError

ROWS = 24
TEXTS = [f"text number {row}" for row in range(ROWS)]
EXAMPLES: dict[str, Mapping[str, list[Any]]] = {
    name: task.example_columns(ROWS) for name, task in TASKS.items()
}


def write(folder: Path, columns: Mapping[str, list[Any]]) -> Path:
    """Write the columns as JSON lines."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_json(folder / "train.jsonl", orient="records", lines=True)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_data_of_each_task_are_recognised(name: str, tmp_path: Path) -> None:
    data = write(tmp_path, EXAMPLES[name])
    recipe = load_recipe("embedded", data=str(data), infer_task=infer_task)
    assert recipe.task == name
    assert with_task(recipe).selection_metric == TASKS[name].metrics[0].name
    said = [note for note in recipe.notes if note.startswith("the task is ")]
    assert len(said) == (name != "text_classification")


@pytest.mark.parametrize("key", ["task", "data.task"])
def test_named_task_is_kept(key: str, tmp_path: Path) -> None:
    data = write(tmp_path, {"text": TEXTS, "label": [row / 7 for row in range(ROWS)]})
    settings = [f"{key}=text_classification"]
    recipe = load_recipe("embedded", settings, data=str(data), infer_task=infer_task)
    assert recipe.task == "text_classification"
    assert not [note for note in recipe.notes if note.startswith("the task is ")]


@pytest.mark.parametrize(
    "columns",
    [
        {"text": TEXTS, "label": [row % 5 for row in range(ROWS)]},
        {"text": TEXTS, "label": [float(row % 5) for row in range(ROWS)]},
        {"text": TEXTS, "label": ["yes", "no"] * (ROWS // 2)},
        {"question": TEXTS, "answer": TEXTS, "label": [row % 2 for row in range(ROWS)]},
        {"text": TEXTS, "label": [True, False] * (ROWS // 2)},
        {"text": TEXTS, "label": ["yes", "no"] * (ROWS // 2), "weight": [0.5] * ROWS},
    ],
    ids=["numbers", "whole decimals", "names", "question and answer", "bools", "another column"],
)
def test_data_that_leave_doubt_are_classes(
    columns: Mapping[str, list[Any]], tmp_path: Path
) -> None:
    recipe = load_recipe("embedded", data=str(write(tmp_path, columns)), infer_task=infer_task)
    assert recipe.task == "text_classification"
    assert recipe.data.select_by == "accuracy"


WORDS = [["a", "film", str(row)] for row in range(ROWS)]
TAGS: list[Any] = [["O", "B-X", "O"]] * ROWS
ONE_BAD: dict[str, tuple[str, Mapping[str, list[Any]], str]] = {
    "a word among scores": (
        "regression",
        {"text": TEXTS, "score": ["good", *[row / 7 for row in range(1, ROWS)]]},
        "'score' in row 0 of train is 'good': a score should be a number",
    ),
    "a missing score": (
        "regression",
        {"text": TEXTS, "score": [None, *[row / 7 for row in range(1, ROWS)]]},
        "'score' in row 0 of train is empty",
    ),
    "a list among scores": (
        "regression",
        {"text": TEXTS, "score": [[1.0], *[row / 7 for row in range(1, ROWS)]]},
        r"'score' in row 0 of train is \[1.0\]: a score should be a number",
    ),
    "no list of labels": (
        "multilabel",
        {"text": TEXTS, "labels": ["a", *[["a", "b"]] * (ROWS - 1)]},
        r"'labels' in row 0 of train is 'a', where other rows have a list.*Write it as .*\[\"a\"\]",
    ),
    "missing labels": (
        "multilabel",
        {"text": TEXTS, "labels": [None, *[["a", "b"]] * (ROWS - 1)]},
        "'labels' in row 0 of train is empty",
    ),
    "a tag too few": (
        "token_classification",
        {"tokens": WORDS, "tags": [["O"], *TAGS[1:]]},
        r"1 of 24 rows .* unlike numbers of words and tags \(the first is row 0",
    ),
    "missing tags": (
        "token_classification",
        {"tokens": WORDS, "tags": [None, *TAGS[1:]]},
        "'tags' in row 0 of train .* is None, not a list",
    ),
    "other keys of turns": (
        "causal_lm",
        {"conversations": [[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]] * 4},
        "no list of turns with role and content, both texts: it is a list with the keys from, val",
    ),
}


@pytest.mark.parametrize("name", ONE_BAD)
def test_a_bad_row_hides_no_task_and_is_named(name: str, tmp_path: Path) -> None:
    task, columns, message = ONE_BAD[name]
    recipe = load_recipe("embedded", data=str(write(tmp_path, columns)), infer_task=infer_task)
    assert recipe.task == task
    with pytest.raises(DataError, match=message):
        TASKS[task].parse(read_source(recipe.data), recipe.data)


@pytest.mark.parametrize(
    ("task", "other"),
    [
        ("regression", "causal_lm"),
        ("multilabel", "token_classification"),
        ("multilabel", "regression"),
        ("token_classification", "multilabel"),
    ],
)
def test_data_of_another_task_than_the_recipes_are_named(
    task: str, other: str, tmp_path: Path
) -> None:
    data = write(tmp_path, EXAMPLES[other])
    recipe = load_recipe("embedded", [f"task={task}"], data=str(data), infer_task=infer_task)
    assert recipe.task == task
    message = (
        f"The task of the recipe is {task}, but these data are for {other}, since .*: set task"
    )
    with pytest.raises(DataError, match=message) as caught:
        prepare(with_task(recipe), (), "cpu", threads=1)
    assert "\n" not in str(caught.value)


def test_data_for_several_tasks_are_refused_by_name(tmp_path: Path) -> None:
    both = {"prompt": TEXTS, "completion": TEXTS, "score": [row / 7 for row in range(ROWS)]}
    with pytest.raises(
        OptionError, match=r"causal_lm \(.*\) or regression \(.*Name the task"
    ) as no:
        load_recipe("embedded", data=str(write(tmp_path, both)), infer_task=infer_task)
    assert no.value.setting == "task"


def test_all_tasks_that_the_data_fit_are_named_where_the_recipes_cannot_read_them(
    tmp_path: Path,
) -> None:
    both = {"prompt": TEXTS, "completion": TEXTS, "score": [row / 7 for row in range(ROWS)]}
    data = write(tmp_path, both)
    recipe = load_recipe("embedded", ["task=token_classification"], data=str(data))
    message = r'for causal_lm, since .* or regression, since .*: set task = "causal_lm" or "regress'
    with pytest.raises(DataError, match=message):
        prepare(with_task(recipe), (), "cpu", threads=1)


def test_margin_of_accuracy_does_not_hold_for_another_task(tmp_path: Path) -> None:
    data = write(tmp_path, {"text": TEXTS, "score": [row / 7 for row in range(ROWS)]})
    recipe = load_recipe("embedded", data=str(data), infer_task=infer_task)
    assert recipe.expect.margin_over_majority == 0
    assert recipe.expect.above_majority


def test_unknown_task_is_named_with_the_nearest(tmp_path: Path) -> None:
    from peft_methods.api import compare

    data = write(tmp_path / "data", {"text": TEXTS, "score": [row / 7 for row in range(ROWS)]})
    with pytest.raises(OptionError, match=r"unknown task 'regresion'\. Did you mean 'regression'"):
        compare(data=str(data), task="regresion", results=tmp_path / "results")
