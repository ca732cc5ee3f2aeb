"""Saved models of regression and several labels predict as measured, in the labels' own unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from builders import make_number_data, small_runs
from peft_methods.data import splits
from peft_methods.runs import pipeline
from peft_methods.runs.export import load_trained
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS

METRIC = {"regression": "spearman", "multilabel": "micro_f1"}
PROBLEM = {"regression": "regression", "multilabel": "multi_label_classification"}
NAMES = {"regression": ["score"], "multilabel": ["bad", "good", "long"]}


def outputs_of(model: Any, folder: Path, run: RunSpec) -> np.ndarray:
    texts = splits.load(run.recipe.data, TASKS[run.recipe.task]).splits["test"].texts
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="pt")
    with torch.no_grad():
        found: np.ndarray = model.eval()(**batch).logits.numpy()
    return found


@pytest.mark.parametrize("task", METRIC)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_saved_model_predicts_what_was_measured(
    tiny_recipe: Path, tmp_path: Path, task: str, method: str
) -> None:
    source = make_number_data(tmp_path / "data", task)
    settings = (f"task={task}", f"data.source={source}", f"data.select_by={METRIC[task]}")
    sizes = ("data.train=32", "data.validation=8", "data.test=16", "data.max_length=16")
    (run,) = small_runs(tiny_recipe, method, *settings, *sizes)
    (tmp_path / "work").mkdir()
    paths = RunPaths(tmp_path / "work", save_to=tmp_path / "saved")
    record, measured = pipeline.execute(run, paths, lambda news: None, threads=1)
    assert record.status == "ok", record.message
    assert measured is not None
    expected = measured.arrays()["outputs" if task == "regression" else "logits"]
    model = load_trained(tmp_path / "saved")
    assert model.config.problem_type == PROBLEM[task]
    assert list(model.config.id2label.values()) == NAMES[task]
    assert np.allclose(outputs_of(model, tmp_path / "saved", run), expected, atol=1e-5)
    if method == "full":
        auto = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    else:
        auto = load_trained(tmp_path / "saved", merge=True)
    assert np.allclose(outputs_of(auto, tmp_path / "saved", run), expected, atol=1e-4)
