"""What every engine takes and gives: callbacks in, per-epoch results out. Also what they share: batches, evaluation, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peft_methods.errors import ModelError, OptionError
from peft_methods.quality import Predictions
from peft_methods.recipe import Budget, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochResult:
    """One epoch's losses (mean cross-entropy, nats) and the validation set's judgement by the recipe's metric.

    Where there is no quality to judge (random weights, or logits that are no numbers) accuracy and selection are None.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    selection: float | None = None

    def is_better_than(self, other: EpochResult | None) -> bool:
        """Whether this later epoch's weights are the ones to keep: those that could be judged, without any the last."""
        if other is None or other.selection is None:
            return True
        if self.selection is None:
            return False
        assert self.validation_loss is not None
        assert other.validation_loss is not None
        return (self.selection, -self.validation_loss) > (other.selection, -other.validation_loss)


@dataclass(frozen=True)
class Training:
    """What training left: the curve, the best epoch (1-based), and what its steps were.

    `steps` are optimizer steps; `samples` and `tokens` went through all epochs trained, padding not counted.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int
    steps: int
    samples: int
    tokens: int
    decay: float


class WorstStep(Protocol):
    """What is told of one whole step on the longest batch."""

    def backward_done(self) -> None:
        """The backward pass has ended; clipping and the optimizer's step follow."""


class NoTrace:
    """A worst step that nobody traces."""

    def backward_done(self) -> None:
        """Nothing."""


class Listener(Protocol):
    """What an engine tells while it works. Engines know nothing of clocks or memory."""

    def enter(self, phase: str) -> None:
        """A phase (warm_up, train, evaluate, save) begins now; the one before ends."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Step `step` of `steps` is done, in `epoch` (1-based)."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over and judged."""

    def worst_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> AbstractContextManager[WorstStep]:
        """Around one whole step on the longest batch, before training, with optimizer state in place.

        With accumulation the gradients of a step's earlier batches are in place too.
        """


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision as the recipe's precision means it: none for fp32."""
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, HALF[precision])


def refuse_unfit(budget: Budget, model: nn.Module, device: str) -> None:
    """Raise `OptionError` for TF32 on a GPU without it, `ModelError` for checkpointing without layers to checkpoint."""
    if budget.precision == "tf32" and device.startswith("cuda") and torch.cuda.get_device_capability() < (8, 0):
        raise OptionError(
            f"budget.precision = 'tf32' needs an NVIDIA GPU with TF32 (Ampere or newer), which {torch.cuda.get_device_name()} is not: "
            f"--peft-set budget.precision=fp32"
        )
    if budget.gradient_checkpointing and not _layers(model):
        raise ModelError(
            f"budget.gradient_checkpointing needs a model with a list of layers, which {type(model).__name__} lacks: "
            f"--peft-set budget.gradient_checkpointing=false"
        )


def _layers(model: nn.Module) -> list[nn.Module]:
    """The encoder's layers: the outermost list of modules of one class."""
    lists = (list(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if len({type(layer) for layer in layers}) == 1), [])


@contextmanager
def checkpointing(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Within it, each layer keeps its input alone in a training step and is computed again in the backward pass.

    Our own, since not every encoder of transformers has it (MPNet 5.17). Not reentrant: then a layer's trained
    parameters get their gradients also where its input has none, as with a frozen encoder.
    """
    layers = _layers(model) if on else []
    for layer in layers:
        layer.forward = _checkpointed(layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


def _checkpointed(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def again(*inputs: Any, **options: Any) -> Any:
        if layer.training and torch.is_grad_enabled():
            return checkpoint(forward, *inputs, use_reentrant=False, **options)
        return forward(*inputs, **options)

    return again


class Collator:
    """Rows of token ids -> a batch padded to its longest row, or to `length` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> None:
        self._length = length
        self._padding = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (rows, longest or length), and `labels` of shape (rows,)."""
        longest = self._length or max(len(row["input_ids"]) for row in rows)
        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        for column, padding in self._padding.items():
            if column in rows[0]:
                batch[column] = torch.tensor([row[column] + [padding] * (longest - len(row[column])) for row in rows])
        return batch


def collator_of(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Pads as the recipe's budget says."""
    return Collator(tokenizer, recipe.data.max_length if recipe.budget.padding == "fixed" else None)


def predict(model: nn.Module, data: Dataset, collate: Collator, batch_size: int, precision: str = "fp32") -> Predictions:
    """Logits for every row, in the data's order. Batches go by length, so little is padded; one copy to the host."""
    device = next(model.parameters()).device
    order = np.argsort(np.asarray(data["length"]), kind="stable")[::-1]
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode(), autocast(device, precision):
        for start in range(0, len(order), batch_size):
            batch = collate([data[int(row)] for row in order[start : start + batch_size]])
            batch.pop("labels")
            parts.append(model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits.float())
    model.train(was_training)
    logits = torch.empty_like(torch.cat(parts))
    logits[torch.as_tensor(order.copy(), device=device)] = torch.cat(parts)
    return Predictions(logits.cpu().numpy(), np.asarray(data["labels"], dtype=np.int64))


def save_trainable(model: nn.Module, path: Path) -> int:
    """All trainable parameters by name, as safetensors; returns the file's bytes."""
    from safetensors.torch import save_file

    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}, path)
    return path.stat().st_size


def load_trainable(model: nn.Module, path: Path) -> None:
    """Put saved parameters back into the model."""
    from safetensors.torch import load_file

    saved = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in saved:
                parameter.copy_(saved[name])
