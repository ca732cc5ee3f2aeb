"""The task that data are for, inferred from their columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from peft_methods.recipes.loading import load_recipe
from peft_methods.tasks.inference import infer_task
from peft_methods.tasks.registry import TASKS, with_task

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
