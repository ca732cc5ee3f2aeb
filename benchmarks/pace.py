"""Training pace of one method by several ways of training it, for the harness's own benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from peft_methods import data, models, synthetic
from peft_methods.cells import chosen_methods
from peft_methods.engines import graphed, stock
from peft_methods.engines.base import NoTrace
from peft_methods.methods import Task
from peft_methods.recipe import load_recipe


class Window(TrainerCallback):
    """Seconds of every `steps` training steps; the first such stretch is a warm-up and left out."""

    def __init__(self, steps: int, synchronize: Callable[[], None]) -> None:
        self._steps, self._synchronize = steps, synchronize
        self._borders: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps == 0:
            self._synchronize()
            self._borders.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self._borders, self._borders[1:], strict=False)]


class Silent:
    """A listener that does not listen."""

    def enter(self, phase: str) -> None: ...
    def step(self, epoch: int, step: int, steps: int) -> None: ...
    def epoch(self, result: Any) -> None: ...
    def worst_step(self, model: Any, optimizer: Any) -> Any:
        from contextlib import nullcontext

        return nullcontext(NoTrace())


class Setting:
    """A recipe's model and data, loaded for one method on one device."""

    def __init__(self, recipe: str, method: str, settings: list[str], device: str) -> None:
        self.device = device
        self.recipe = load_recipe(recipe, settings)
        self.method = chosen_methods(self.recipe, [method])[0]
        texts = synthetic.load(self.recipe)
        torch.manual_seed(0)
        precision = self.recipe.budget.precision
        self.base = models.load(
            self.recipe.model, texts.facts.label_names, quantization=self.method.quantization, precision=precision, device=device
        )
        self.model = self.method.inject(self.base.model, Task(self.base.shape, self.base.head))
        self.tokens = data.tokenize(texts, self.base.tokenizer, self.recipe.data.max_length)

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def by_engine(self, kind: type[stock.StockTrainer], folder: Path, steps: int, windows: int) -> list[float]:
        """Through one of the engines' trainers, its warm-up and captures left out."""
        arguments = stock.arguments_of(self.recipe, self.method, 0, self.device, folder, autocast=kind.autocasts)
        arguments.max_steps = steps * (windows + 1)
        collate = stock.collator_of(self.recipe, self.base.tokenizer)
        own = {"budget": self.recipe.budget, "listener": Silent()}
        return self._timed(kind(self.method, self.base.head, self.model, arguments, collate, self.tokens.train, **own), steps)

    def as_notebooks_do(self, folder: Path, steps: int, windows: int) -> list[float]:
        """transformers' Trainer as it comes: fp32, every row padded to the greatest length, rows as lists."""
        return self._plain(folder, steps, windows, padded=True)

    def tuned(self, folder: Path, steps: int, windows: int) -> list[float]:
        """transformers' Trainer with bf16 and batches padded to their longest row, in length groups."""
        return self._plain(folder, steps, windows, padded=False, bf16=self.device == "cuda", train_sampling_strategy="group_by_length")

    def _plain(self, folder: Path, steps: int, windows: int, *, padded: bool, **options: Any) -> list[float]:
        from datasets import Dataset

        longest, pad = self.recipe.data.max_length, self.base.tokenizer.pad_token_id
        rows = [{k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in self.tokens.train]
        if padded:
            for row in rows:
                missing = longest - len(row["input_ids"])
                row["input_ids"], row["attention_mask"] = row["input_ids"] + [pad] * missing, row["attention_mask"] + [0] * missing
        arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=self.recipe.budget.batch_size,
            max_steps=steps * (windows + 1),
            learning_rate=self.method.learning_rate,
            weight_decay=self.recipe.budget.weight_decay,
            use_cpu=self.device == "cpu",
            dataloader_pin_memory=self.device != "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **options,
        )
        collate = default_data_collator if padded else DataCollatorWithPadding(self.base.tokenizer)
        return self._timed(Trainer(self.model, arguments, collate, Dataset.from_list(rows)), steps)

    def _timed(self, trainer: Trainer, steps: int) -> list[float]:
        window = Window(steps, self.synchronize)
        trainer.add_callback(window)
        trainer.train()
        return window.seconds


ENGINES = {"stock": stock.StockTrainer, "graphed": graphed.GraphedTrainer}
