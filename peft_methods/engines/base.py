"""What every engine takes and gives: callbacks in, per-epoch results out. Also the evaluation they share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from peft_methods.quality import Predictions

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochResult:
    """One epoch's losses (mean cross-entropy, nats) and the validation set's judgement by the recipe's metric.

    Where there is no quality to judge (random weights) only the training loss is known.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    selection: float | None = None

    def is_better_than(self, other: EpochResult | None) -> bool:
        """Whether this later epoch's weights are the ones to keep: without a judgement the last are."""
        if other is None or other.selection is None or self.selection is None:
            return True
        assert self.validation_loss is not None
        assert other.validation_loss is not None
        return (self.selection, -self.validation_loss) > (other.selection, -other.validation_loss)


@dataclass(frozen=True)
class Training:
    """What training left: the curve, the best epoch (1-based), and what its steps were."""

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
        """Around one whole step on the longest batch, before training, with gradients and optimizer state in place."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision as the recipe's precision means it: none for fp32."""
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, HALF[precision])


class Collator:
    """Rows of token ids -> a batch padded to its longest row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._padding = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (rows, longest), and `labels` of shape (rows,)."""
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        for column, padding in self._padding.items():
            if column in rows[0]:
                batch[column] = torch.tensor([row[column] + [padding] * (longest - len(row[column])) for row in rows])
        return batch


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
