"""What a cell is measured on: a tiny model of its family, and tiny data of its task."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed

from peft_methods.capabilities.cells import Cell, Result
from peft_methods.capabilities.tiny import make_any, write_example
from peft_methods.data import splits, tokenize
from peft_methods.data.facts import TextData, TokenData
from peft_methods.data.token_rows import TokenRows
from peft_methods.methods.base import TRAINED, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_names import in_modules
from peft_methods.models.parameters import save_trainable
from peft_methods.recipes.schema import Budget, DataSpec, ModelSpec, Recipe
from peft_methods.runs.isolation.kept import Kept
from peft_methods.runs.placement import model_of
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.training.collate import make_collator
from peft_methods.training.engine import TrainingJob
from peft_methods.training.precision import autocast
from peft_methods.training.registry import DEFAULT
from peft_methods.utils.errors import ModelError, first_line

RATE = 0.01  # lower rates teach so small a model nothing in a few steps
BUDGET: dict[str, Any] = {"epochs": 3, "batch_size": 8, "seeds": 1, "schedule": "constant"}
SIZES: dict[str, Any] = {"train": 32, "validation": 12, "test": 12, "max_length": 12}
SEED = 0


@dataclass(frozen=True)
class Ground:
    """A folder with a tiny model of each family and tiny data of each task."""

    root: Path

    @classmethod
    def made(cls, root: Path, families: Iterable[str], tasks: Iterable[str]) -> Ground:
        """Write the models and the data."""
        ground = cls(root)
        for family in families:
            make_any(ground.model(family), family, vivid=True)
        for task in tasks:
            write_example(TASKS[task], ground.data(task))
        return ground

    def model(self, family: str) -> Path:
        """The folder of a model."""
        return self.root / "models" / family

    def data(self, task: str) -> Path:
        """The folder of a task's data."""
        return self.root / "data" / task

    def recipe(self, cell: Cell) -> Recipe:
        """Return the recipe that a cell is trained with."""
        budget = Budget(
            **BUDGET, precision=cell.precision, gradient_checkpointing=cell.checkpointing
        )
        model = ModelSpec(str(self.model(cell.family)))
        data = DataSpec(str(self.data(cell.task)), **SIZES)
        return with_task(Recipe("capabilities", model, data, budget, {cell.method: {}}, cell.task))

    def texts(self, cell: Cell) -> TextData:
        """Return the texts of the cell's task."""
        return _texts(self.recipe(Cell("", "", cell.task)).data, cell.task)


@cache
def _texts(spec: DataSpec, task: str) -> TextData:
    return splits.load(spec, TASKS[task])


def method_of(cell: Cell) -> Method:
    """Return the method with the settings of its example, and a rate that teaches a tiny model.

    That is the highest of the method's default rates, of any kind of model, and `RATE` at least.
    """
    kind = METHODS[cell.method]
    rate = max([RATE, *(default.value for default in kind.info.learning_rates.values())])
    settings = {"learning_rate": rate, "head_learning_rate": RATE, **kind.example_settings()}
    method: Method = METHODS.create(cell.method, settings, "capabilities")
    return method


@dataclass(frozen=True)
class Trial:
    """A cell ready to train: its model with the method applied, and its tokens."""

    cell: Cell
    run: RunSpec
    base: loading.LoadedModel
    model: nn.Module
    tokens: TokenData

    @property
    def task(self) -> Task:
        """The task of the cell."""
        return TASKS[self.cell.task]

    def outputs(self, model: nn.Module | None = None) -> Tensor:
        """Return what the model, or another one, predicts for the test rows, on the host."""
        batch = batch_of(self.run.recipe, self.base, self.tokens.test, self.run.device)
        return outputs_of(model or self.model, batch, self.cell, self.run.device)

    def loss(self) -> Tensor:
        """Return the mean loss of the training rows, with its graph."""
        batch = batch_of(self.run.recipe, self.base, self.tokens.train, self.run.device)
        with computing(self.cell, self.run.device):
            return self.task.loss(self.model, batch).mean

    def job(self, work: Path) -> TrainingJob:
        """Return the job for an engine."""
        return TrainingJob(
            model=self.model,
            method=self.run.method,
            data=self.tokens,
            recipe=self.run.recipe,
            tokenizer=self.base.tokenizer,
            head=self.base.head,
            seed=SEED,
            device=self.run.device,
            workdir=work,
        )


def computing(cell: Cell, device: str) -> AbstractContextManager[Any]:
    """Context manager for the cell's precision."""
    return autocast(torch.device(device), cell.precision)


def batch_of(
    recipe: Recipe, base: loading.LoadedModel, rows: TokenRows, device: str
) -> dict[str, Any]:
    """Return these rows as one batch on the device."""
    batch = make_collator(recipe, base.tokenizer)([rows[row] for row in range(len(rows))])
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def outputs_of(model: nn.Module, batch: dict[str, Any], cell: Cell, device: str) -> Tensor:
    """Return what a model predicts for a batch, on the host."""
    model.eval()
    with torch.no_grad(), computing(cell, device):
        return TASKS[cell.task].predict(model, batch).float().cpu()


def load(cell: Cell, ground: Ground, device: str, quantization: Any = None) -> loading.LoadedModel:
    """Load the cell's model without its method. Raises `ModelError` if it cannot do the task."""
    set_seed(SEED)
    return loading.load(
        ModelSpec(str(ground.model(cell.family))),
        TASKS[cell.task].head,
        ground.texts(cell).facts.label_names,
        quantization=quantization,
        precision=cell.precision,
        device=device,
    )


def tokens_of(cell: Cell, ground: Ground, base: loading.LoadedModel) -> TokenData:
    """Return the tokens of the cell's data."""
    recipe = ground.recipe(cell)
    return tokenize.tokenize(ground.texts(cell), base.tokenizer, recipe.data, TASKS[cell.task])


def architecture_or_reason(cell: Cell, ground: Ground) -> Architecture | str:
    """Return the architecture of the cell's model, or why it cannot do the task."""
    try:
        return load(cell, ground, "cpu").architecture
    except ModelError as error:
        return str(error).replace(repr(str(ground.model(cell.family))), "this")


def unsupported(cell: Cell, ground: Ground, device: str) -> Result | None:
    """Return why the method cannot train the family on the task, by its own word, or None.

    A method that cannot even be asked has failed.
    """
    found = architecture_or_reason(cell, ground)
    if isinstance(found, str):
        return Result(reason=found)
    try:
        reason = method_of(cell).unsupported(found, device)
    except Exception as error:  # of any package's method
        return Result(failed={"count": first_line(error)})
    return None if reason is None else Result(reason=reason)


def build(cell: Cell, ground: Ground, device: str, work: Path, engine: str = DEFAULT) -> Trial:
    """Load the cell's model and apply its method, as a run does; the same way each time."""
    recipe = ground.recipe(cell)
    run = RunSpec(recipe, method_of(cell), SEED, device, engine)
    paths = RunPaths(work, _prerequisites(cell, run.method, ground, device, work))
    kept = Kept()
    base, model = model_of(run, paths, kept.texts(run), None, kept)
    tokens = kept.tokens(run, base.tokenizer, base.tokenizer_sha256)
    return Trial(cell, run, base, model, tokens)


def plain_outputs(trial: Trial, ground: Ground) -> Tensor:
    """Return what the base model predicts without the method and without quantization."""
    device, quantization = trial.run.device, trial.run.method.info.quantization
    plain = load(trial.cell, ground, device)
    if quantization is not None:
        source = load(trial.cell, ground, device, quantization)  # has the head of the trial
        weights = dict(source.model.named_parameters())
        with torch.no_grad():
            for name, parameter in plain.model.named_parameters():
                if in_modules(name, plain.head):
                    parameter.copy_(weights[name])
    return trial.outputs(plain.model)


def _prerequisites(
    cell: Cell, method: Method, ground: Ground, device: str, work: Path
) -> tuple[Path, ...]:
    """Save a model for each prerequisite run, with weights that change the outputs."""
    folders = []
    for number, (_, earlier) in enumerate(method.prerequisites(ground.recipe(cell))):
        run = RunSpec(ground.recipe(cell), earlier, SEED, device)
        kept = Kept()
        base, model = model_of(run, RunPaths(work), kept.texts(run), None, kept)
        torch.manual_seed(number)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and not in_modules(name, base.head):
                    parameter.normal_(std=0.1)
        folders.append(work / f"prerequisite{number}")
        folders[-1].mkdir(parents=True, exist_ok=True)
        save_trainable(model, folders[-1] / TRAINED)
    return tuple(folders)
