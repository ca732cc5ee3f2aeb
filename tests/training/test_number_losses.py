"""Losses of regression and several labels: both engines and a plain Trainer agree step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from builders import make_number_data, prepared, train_with_both_engines, without_dropout
from peft_methods.tasks.registry import task_of

SMALL = ("data.train=32", "data.validation=8", "data.test=8", "data.max_length=16")
STEPS = ("budget.epochs=2", "budget.batch_size=8", "budget.padding='fixed'")
TASKS = ("regression", "multilabel")


def settings_of(task: str, folder: Path) -> tuple[str, ...]:
    source = make_number_data(folder / "data", task)
    own = (f"task={task}", f"data.source={source}", f"data.select_by={METRIC[task]}")
    return (*own, *SMALL, *STEPS)


METRIC = {"regression": "spearman", "multilabel": "micro_f1"}


def train_plainly(recipe: Path, folder: Path, settings: tuple[str, ...]) -> list[float]:
    """Train with transformers alone: its Trainer, its collator and the loss of its model."""
    _, method, base, model, tokens = prepared(recipe, "full", *settings)
    without_dropout(model)
    rows = [{**row, "labels": np.asarray(row["labels"], dtype=np.float32)} for row in tokens.train]
    losses: list[float] = []

    class Plain(transformers.Trainer):
        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            loss = super().training_step(*arguments, **options)
            losses.append(float(loss))
            return loss

    plain = transformers.TrainingArguments(
        output_dir=str(folder / "plain"),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=method.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        save_strategy="no",
        report_to=[],
        seed=0,
        data_seed=0,
        use_cpu=True,
        disable_tqdm=True,
    )
    collate = transformers.DataCollatorWithPadding(
        base.tokenizer, padding="max_length", max_length=16
    )
    Plain(model, plain, collate, rows).train()
    return losses


@pytest.mark.parametrize("task", TASKS)
def test_both_engines_and_a_plain_trainer_have_the_same_losses(
    tiny_recipe: Path, tmp_path: Path, task: str
) -> None:
    settings = (*settings_of(task, tmp_path), "budget.weight_decay=0.0", "budget.warmup_ratio=0.0")
    ours, _ = train_with_both_engines(tiny_recipe, tmp_path, "full", *settings)
    plain = train_plainly(tiny_recipe, tmp_path, settings)
    assert len(ours.losses) == len(plain) == 8
    assert ours.losses == pytest.approx(plain, abs=2e-5)
    assert len(set(plain)) == 8


@pytest.mark.parametrize("task", TASKS)
def test_several_labels_a_row_are_captured_with_accumulation(
    tiny_recipe: Path, tmp_path: Path, task: str
) -> None:
    settings = (*settings_of(task, tmp_path), "budget.gradient_accumulation=2")
    plain, replayed = train_with_both_engines(tiny_recipe, tmp_path, "lora", *settings)
    assert len(plain.losses) == len(replayed.losses) == 8


def test_several_scores_have_the_loss_of_transformers(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = make_number_data(tmp_path / "data", "regression")
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for number, row in enumerate(rows):
            row["score"] = [row["score"], number % 7 / 2, -1.0 * (number % 3)]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = ("task=regression", f"data.source={folder}", "data.select_by=pearson")
    recipe, _, base, model, tokens = prepared(tiny_recipe, "full", *settings, *SMALL)
    task = task_of(recipe)
    collate = task.collator(base.tokenizer)
    batch = collate([tokens.train[row] for row in range(8)])
    assert batch["labels"].shape == (8, 3)
    assert model.config.problem_type == "regression"
    with torch.no_grad():
        found, theirs = task.loss(model.eval(), batch), model(**batch).loss
    assert float(found.mean) == pytest.approx(float(theirs), rel=1e-6)
