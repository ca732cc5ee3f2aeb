"""Tiny jobs of causal language modelling: prompts, completions, recipes and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from peft_methods.data import splits, tokenize
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.recipes.schema import Budget, DataSpec, ModelSpec, Recipe
from peft_methods.runs import pipeline, run_paths
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS, with_task

TASK = TASKS["causal_lm"]
WORDS = ("good", "bad", "fine", "poor")


def write_pairs(folder: Path, train: int = 48, test: int = 12) -> Path:
    """Write prompts whose completion repeats a word; test rows have two references."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": f"plot {WORDS[i % 4]} {chr(97 + i // 26)} {chr(97 + i % 26)}",
            "completion": f"{WORDS[i % 4]} " + "very " * (i % 3) + "end",
        }
        for i in range(train + test)
    ]
    tested = [
        {**row, "refs": [row["completion"], f"the {row['completion']}"]} for row in rows[train:]
    ]
    for name, part in (("train", rows[:train]), ("test", tested)):
        lines = "\n".join(json.dumps(row) for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def recipe_of(model: Path, data: Path, method: str = "full", **changes: Any) -> Recipe:
    """Return a recipe of a few steps. `changes` go to the data or to the budget."""
    of_data = {name: value for name, value in changes.items() if hasattr(DataSpec, name)}
    of_budget = {name: value for name, value in changes.items() if name not in of_data}
    spec = DataSpec(
        str(data), **{"train": 36, "validation": 12, "test": 12, "max_length": 24} | of_data
    )
    budget = Budget(**{"epochs": 2, "batch_size": 8, "seeds": 1} | of_budget)
    return with_task(
        Recipe("lm", ModelSpec(str(model)), spec, budget, {method: {}}, task="causal_lm")
    )


def method_of(name: str, rate: float = 1e-2) -> Method:
    settings = {"learning_rate": rate, **METHODS[name].example_settings()}
    return METHODS.create(name, settings, "test")


def ready(recipe: Recipe, name: str = "full", rate: float = 1e-2, *, device: str = "cpu") -> Any:
    """Return what `training_job` needs: the model with the method applied, and the tokens."""
    method = method_of(name, rate)
    texts = splits.load(recipe.data, TASK)
    transformers.set_seed(0)
    base = loading.load(
        recipe.model,
        TASK.head,
        texts.facts.label_names,
        quantization=method.info.quantization,
        precision=recipe.budget.precision,
        device=device,
    )
    context = ApplyContext(base.architecture, base.head, TASK.peft_type)
    tokens = tokenize.tokenize(texts, base.tokenizer, recipe.data, TASK)
    return recipe, method, base, method.apply(base.model, context), tokens


def run_and_save(recipe: Recipe, name: str, folder: Path) -> tuple[Any, Any, Path]:
    """Run a recipe with one method and save its model. Return record, predictions and folder."""
    run = RunSpec(recipe, method_of(name), 0, "cpu")
    work, saved = folder / "work", folder / "saved"
    work.mkdir(parents=True)
    paths = run_paths.RunPaths(work, (), save_to=saved)
    record, predictions = pipeline.execute(run, paths, lambda news: None, threads=1)
    assert record.status == "ok", record.message
    return record, predictions, saved


class PlainTrainer(transformers.Trainer):
    """The Hugging Face Trainer that keeps the loss of each step, in `losses`.

    The rows come in the order of `generator`, or as they are without one.
    """

    def __init__(self, *arguments: Any, generator: torch.Generator | None = None) -> None:
        super().__init__(*arguments)
        self.losses: list[float] = []
        self._generator = generator

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Run a step and keep its loss."""
        loss = super().training_step(*arguments, **options)
        self.losses.append(float(loss))
        return loss

    def _get_train_sampler(self, *_: Any) -> Any:
        if self._generator is None:
            return torch.utils.data.SequentialSampler(self.train_dataset)
        return torch.utils.data.RandomSampler(self.train_dataset, generator=self._generator)
