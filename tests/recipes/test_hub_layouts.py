"""Recipes of tasks other than classes, with data in the columns of the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from builders import FILLER
from peft_methods.data import splits
from peft_methods.recipes.loading import find_recipe, load_recipe
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.registry import TASKS, with_task

EMOTIONS = ["admiration", "amusement", "anger", "grief", "neutral"]
RECIPES = {"stsb_regression": "regression", "goemotions_multilabel": "multilabel"}


def sentence(number: int) -> str:
    return (
        " ".join(FILLER[(number >> 2 * place) % len(FILLER)] for place in range(6)) + f" {number}"
    )


def stsb(rows: int, start: int, *, hidden: bool = False) -> datasets.Dataset:
    """Return pairs as of GLUE: its test split has -1 in place of every score."""
    numbers = range(start, start + rows)
    return datasets.Dataset.from_dict(
        {
            "sentence1": [sentence(number) for number in numbers],
            "sentence2": [f"{sentence(number)} too" for number in numbers],
            "label": [-1.0 if hidden else number % 26 / 5 for number in numbers],
            "idx": list(numbers),
        },
        datasets.Features(
            sentence1=datasets.Value("string"),
            sentence2=datasets.Value("string"),
            label=datasets.Value("float32"),
            idx=datasets.Value("int32"),
        ),
    )


def goemotions(rows: int, start: int) -> datasets.Dataset:
    """Return comments with ids of labels, whose names the features declare; nobody feels grief."""
    ids = [[0], [1, 2], [4], [2], [0, 1]]
    numbers = range(start, start + rows)
    return datasets.Dataset.from_dict(
        {
            "text": [sentence(number) for number in numbers],
            "labels": [ids[number % 5] for number in numbers],
            "id": [f"e{number}" for number in numbers],
        },
        datasets.Features(
            text=datasets.Value("string"),
            labels=datasets.Sequence(datasets.ClassLabel(names=EMOTIONS)),
            id=datasets.Value("string"),
        ),
    )


def hub_folder(name: str, folder: Path, *, parquet: bool) -> Path:
    """Write a data set in the hub's columns, as `save_to_disk` or as Parquet files."""
    made: dict[str, Any] = {
        "stsb_regression": lambda: {
            "train": stsb(90, 0),
            "validation": stsb(30, 1000),
            "test": stsb(30, 2000, hidden=True),
        },
        "goemotions_multilabel": lambda: {
            "train": goemotions(90, 0),
            "validation": goemotions(30, 1000),
            "test": goemotions(30, 2000),
        },
    }[name]()
    if not parquet:
        datasets.DatasetDict(made).save_to_disk(folder)
        return folder
    folder.mkdir()
    for split, rows in made.items():
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def data_of(name: str, source: Path) -> DataSpec:
    """Return the recipe's data section with another source, and sizes that fit it."""
    spec = load_recipe(name).data
    validation = 20 if spec.validation != "all" else "all"
    return replace(spec, source=str(source), config=None, validation=validation, test="all")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_names_its_task_metric_and_the_source_of_each_rate(name: str) -> None:
    recipe = with_task(load_recipe(name))
    assert recipe.task == RECIPES[name]
    assert recipe.selection_metric == TASKS[recipe.task].metrics[0].name
    assert recipe.gpu
    assert len(recipe.methods) >= 7
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    assert all("  # " in line for line in lines if "learning_rate =" in line)


@pytest.mark.parametrize("parquet", [False, True])
def test_stsb_is_tested_on_glues_development_pairs(tmp_path: Path, parquet: bool) -> None:
    source = hub_folder("stsb_regression", tmp_path / "stsb", parquet=parquet)
    data = splits.load(data_of("stsb_regression", source), TASKS["regression"])
    assert [len(table) for table in data.splits.values()] == [70, 20, 30]
    assert data.splits["test"].pairs is not None
    assert all(0 <= score <= 5 for score in data.splits["test"].labels)
    assert data.facts.drawn_from == {"train": "train", "validation": "train", "test": "test"}


@pytest.mark.parametrize("parquet", [False, True])
def test_goemotions_ids_get_their_names(tmp_path: Path, parquet: bool) -> None:
    source = hub_folder("goemotions_multilabel", tmp_path / "emotions", parquet=parquet)
    data = splits.load(data_of("goemotions_multilabel", source), TASKS["multilabel"])
    assert data.facts.label_names == ("admiration", "amusement", "anger", "neutral")
    assert data.facts.notes == ("no train row has 1 of the declared labels: grief",)
    row = data.splits["test"].texts.index(sentence(2001))
    assert data.splits["test"].labels[row] == (0, 1, 1, 0)
