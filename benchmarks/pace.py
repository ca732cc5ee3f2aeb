"""Training pace of one method by several ways of training it, for the harness's own benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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

ENGINES = {"stock": stock.StockTrainer, "graphed": graphed.GraphedTrainer}


class Window(TrainerCallback):
    """Seconds of every `steps` training steps; the first such stretch is a warm-up and left out."""

    def __init__(self, steps: int, device: str) -> None:
        self._steps, self._device = steps, device
        self._borders: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps == 0:
            synchronize(self._device)
            self._borders.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self._borders, self._borders[1:], strict=False)]


class Silent:
    """A listener that does not listen."""

    def enter(self, phase: str) -> None:
        pass

    def step(self, epoch: int, step: int, steps: int) -> None:
        pass

    def epoch(self, result: Any) -> None:
        pass

    def worst_step(self, model: Any, optimizer: Any) -> Any:
        return nullcontext(NoTrace())


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def cudnn_attention(*, on: bool) -> Iterator[None]:
    """Whether scaled dot-product attention may be cuDNN's, which plans anew for each shape of batch."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(on)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class Setting:
    """A recipe's model and data, loaded for one method on one device."""

    def __init__(self, recipe: str, method: str, settings: list[str], device: str) -> None:
        self.device, self.recipe = device, load_recipe(recipe, settings)
        self.method = chosen_methods(self.recipe, [method])[0]
        texts = synthetic.load(self.recipe)
        torch.manual_seed(0)
        wanted = {"quantization": self.method.quantization, "precision": self.recipe.budget.precision, "device": device}
        self.base = models.load(self.recipe.model, texts.facts.label_names, **wanted)
        self.model = self.method.inject(self.base.model, Task(self.base.shape, self.base.head))
        self.tokens = data.tokenize(texts, self.base.tokenizer, self.recipe.data.max_length)

    def by_engine(self, name: str, folder: Path, steps: int, windows: int) -> list[float]:
        """Through one of our engines, its captures left out."""
        kind = ENGINES[name]
        arguments = stock.arguments_of(self.recipe, self.method, 0, self.device, folder, autocast=kind.autocasts)
        arguments.max_steps = steps * (windows + 1)
        collate = stock.collator_of(self.recipe, self.base.tokenizer)
        own: dict[str, Any] = {"budget": self.recipe.budget, "listener": Silent()}
        with cudnn_attention(on=False):
            trainer = kind(self.method, self.base.head, self.model, arguments, collate, self.tokens.train, **own)
            return self._timed(trainer, steps)

    def as_notebooks_do(self, folder: Path, steps: int, windows: int) -> list[float]:
        """transformers' Trainer as it comes: fp32, every row padded to the greatest length, rows as lists."""
        longest, pad = self.recipe.data.max_length, self.base.tokenizer.pad_token_id
        rows = self._rows()
        for row in rows:
            missing = longest - len(row["input_ids"])
            row["input_ids"], row["attention_mask"] = row["input_ids"] + [pad] * missing, row["attention_mask"] + [0] * missing
        return self._plain(rows, default_data_collator, folder, steps, windows)

    def tuned(self, folder: Path, steps: int, windows: int, *, cudnn: bool = True) -> list[float]:
        """transformers' Trainer with bf16 (on a GPU) and batches padded to their longest row."""
        with cudnn_attention(on=cudnn):
            collate = DataCollatorWithPadding(self.base.tokenizer)
            grouped = {"bf16": self.device == "cuda", "train_sampling_strategy": "group_by_length" if self.device == "cuda" else "random"}
            return self._plain(self._rows(), collate, folder, steps, windows, **grouped)

    def _rows(self) -> list[dict[str, Any]]:
        return [{k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in self.tokens.train]

    def _plain(self, rows: Any, collate: Any, folder: Path, steps: int, windows: int, **options: Any) -> list[float]:
        from datasets import Dataset

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
        return self._timed(Trainer(self.model, arguments, collate, Dataset.from_list(rows)), steps)

    def _timed(self, trainer: Trainer, steps: int) -> list[float]:
        window = Window(steps, self.device)
        trainer.add_callback(window)
        trainer.train()
        return window.seconds
