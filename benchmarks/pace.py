"""Training speed of one method with several training loops, for benchmarks of the harness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from observers import Kernels, NullObserver, Window
from peft_methods.data import synthetic, tokenize
from peft_methods.data.token_rows import TokenRows
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.recipes.loading import load_recipe
from peft_methods.tasks.registry import TASKS
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import TrainingJob
from peft_methods.training.trainer import loop

TRAINERS = {"trainer": loop.RunTrainer, "cuda_graphs": CudaGraphsTrainer}


def _as_lists(rows: TokenRows) -> list[dict[str, Any]]:
    return [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
        for row in rows
    ]


@contextmanager
def cudnn_attention(*, on: bool) -> Iterator[None]:
    """Context manager: allow or forbid cuDNN attention, which plans for each batch shape."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(on)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def check_devices(device: str) -> None:
    """Raise `RuntimeError` if several GPUs are visible: the Trainer would divide its batches."""
    if device == "cuda" and torch.cuda.device_count() > 1:
        raise RuntimeError("several GPUs are visible: set CUDA_VISIBLE_DEVICES=0")


class Setup:
    """A recipe's model and data, loaded for one method on one device.

    Methods that train return the seconds of `windows` windows of `steps` training steps each.
    """

    def __init__(self, recipe: str, method: str, settings: list[str], device: str) -> None:
        check_devices(device)
        self.device, self.recipe = device, load_recipe(recipe, settings)
        self.method = chosen_methods(self.recipe, [method])[0]
        texts = synthetic.load(self.recipe, TASKS[self.recipe.task])
        torch.manual_seed(0)
        wanted = {
            "quantization": self.method.info.quantization,
            "precision": self.recipe.budget.precision,
            "device": device,
        }
        self.base = loading.load(
            self.recipe.model, TASKS[self.recipe.task].head, texts.facts.label_names, **wanted
        )
        self.model = self.method.apply(
            self.base.model,
            ApplyContext(self.base.architecture, self.base.head, TASKS[self.recipe.task].peft_type),
        )
        self.tokens = tokenize.tokenize(
            texts, self.base.tokenizer, self.recipe.data, TASKS[self.recipe.task]
        )

    def by_engine(self, name: str, folder: Path, steps: int, windows: int) -> list[float]:
        """Time one of our engines, without the capture of its steps."""
        with cudnn_attention(on=False):
            return self._timed(self._engine(name, folder, steps * (windows + 1)), steps)

    def kernels(self, name: str, folder: Path, steps: int) -> dict[str, float]:
        """Return the milliseconds per step of each kernel of an engine, the slowest first."""
        with cudnn_attention(on=False):
            trainer = self._engine(name, folder, 2 * steps)
            trainer.add_callback(kernels := Kernels(steps, self.device))
            trainer.train()
            return kernels.milliseconds

    def _engine(self, name: str, folder: Path, steps: int) -> Trainer:
        kind, job = TRAINERS[name], self.job(folder)
        arguments = loop.trainer_arguments(job, autocast=kind.autocasts)
        arguments.max_steps = steps
        return kind(job, arguments, NullObserver())

    def job(self, folder: Path) -> TrainingJob:
        """Return the training job for the engines."""
        return TrainingJob(
            model=self.model,
            method=self.method,
            data=self.tokens,
            recipe=self.recipe,
            tokenizer=self.base.tokenizer,
            head=self.base.head,
            seed=0,
            device=self.device,
            workdir=folder,
        )

    def by_notebook(self, folder: Path, steps: int, windows: int) -> list[float]:
        """Time transformers' Trainer as typical notebooks use it.

        It uses fp32, rows as lists, and every row padded to the maximum length.
        """
        return self._plain(
            self._padded(self.tokens.train), default_data_collator, folder, steps, windows
        )

    def run_notebook(self, folder: Path) -> None:
        """Train all epochs as a notebook does, and evaluate each on the test rows."""
        from datasets import Dataset

        budget = self.recipe.budget
        options = {
            "num_train_epochs": budget.epochs,
            "eval_strategy": "epoch",
            "per_device_eval_batch_size": budget.batch_size,
        }
        arguments = self._arguments(folder, **options)
        train, test = (
            Dataset.from_list(self._padded(rows)) for rows in (self.tokens.train, self.tokens.test)
        )
        Trainer(self.model, arguments, default_data_collator, train, test).train()

    def by_tuned_trainer(
        self, folder: Path, steps: int, windows: int, *, cudnn: bool = True
    ) -> list[float]:
        """Time a Trainer with bf16 (on a GPU) and batches padded to their longest row."""
        with cudnn_attention(on=cudnn):
            collate = DataCollatorWithPadding(self.base.tokenizer)
            grouped = {
                "bf16": self.device == "cuda",
                "train_sampling_strategy": "group_by_length" if self.device == "cuda" else "random",
            }
            return self._plain(
                _as_lists(self.tokens.train), collate, folder, steps, windows, **grouped
            )

    def _padded(self, rows: TokenRows) -> list[dict[str, Any]]:
        longest, pad = self.recipe.data.max_length, self.base.tokenizer.pad_token_id
        padded = _as_lists(rows)
        for row in padded:
            for column, values in row.items():
                if isinstance(values, list):
                    fill = pad if column == "input_ids" else 0
                    row[column] = values + [fill] * (longest - len(values))
        return padded

    def _plain(
        self, rows: Any, collate: Any, folder: Path, steps: int, windows: int, **options: Any
    ) -> list[float]:
        from datasets import Dataset

        arguments = self._arguments(folder, max_steps=steps * (windows + 1), **options)
        return self._timed(Trainer(self.model, arguments, collate, Dataset.from_list(rows)), steps)

    def _arguments(self, folder: Path, **options: Any) -> TrainingArguments:
        return TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=self.recipe.budget.batch_size,
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

    def _timed(self, trainer: Trainer, steps: int) -> list[float]:
        window = Window(steps, self.device)
        trainer.add_callback(window)
        trainer.train()
        return window.seconds
