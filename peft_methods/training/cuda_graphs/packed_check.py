"""Whether a model keeps packed examples apart, and has the loss of a padded batch: it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.tasks.base import Task
from peft_methods.tasks.collate import PLACES, Collator
from peft_methods.training.activation_checkpointing import layers_of
from peft_methods.training.collate import on_device
from peft_methods.training.cuda_graphs.packed_attention import PackedAttention
from peft_methods.training.cuda_graphs.token_batches import TokenCollator
from peft_methods.training.precision import autocast
from peft_methods.utils.errors import first_line

LENGTH = 64  # tokens of a tried row, if there are as short ones
# Differences relative to the whole. Other examples change nothing; another kernel of attention and
# products of other shapes round differently, in 16 bits much more than in 32.
ALLOWED_CHANGE, ALLOWED_DIFFERENCE = 1e-5, {"single": 1e-3, "half": 5e-2}


class PackedCheck:
    """Tries a model on a few short rows, each beside others, and alone in a padded batch."""

    def __init__(
        self, model: nn.Module, task: Task, packing: PackedAttention, precision: str
    ) -> None:
        self._model, self._packing, self._precision = model, packing, precision
        self._loss, self._packed_loss = task.loss, packing.loss(task.loss)

    def problem(
        self, rows: TokenRows, pack: Callable[..., TokenCollator], padded: Collator
    ) -> str | None:
        """Return what is wrong with packed rows, or None.

        An example should have the same states and the same loss between other examples, whatever
        they are, and alone. `pack(batches, size)` makes the collator of the rows of such batches:
        those of training may be too small for the rows that are tried.
        """
        chosen = _short_rows(rows.lengths)
        packed = pack([chosen], size=len(chosen))
        first, own, last = (rows[row] for row in chosen)
        start, end = len(first["input_ids"]), len(first["input_ids"]) + len(own["input_ids"])
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                states, loss = self._of_packed(packed, (first, own, last))
                changed, _ = self._of_packed(packed, (_reversed(first), own, _reversed(last)))
                alone, expected = self._run(padded([own]))
        except Exception as error:  # a model raises whatever it likes
            return f"it cannot be given packed tokens ({type(error).__name__}: {first_line(error)})"
        finally:
            self._model.train(was_training)
        here, alone = states[start:end], alone[: end - start]
        if (here - changed[start:end]).norm() > ALLOWED_CHANGE * here.norm():
            return "an example sees the examples beside it"
        allowed = ALLOWED_DIFFERENCE["single" if self._precision == "fp32" else "half"]
        if (here - alone).norm() > allowed * alone.norm():
            return "an example has other states than alone"
        if (loss - expected).abs() > allowed * expected.abs():
            return "an example has another loss than alone"
        return None

    def _of_packed(
        self, collate: TokenCollator, rows: Sequence[TokenRow]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states (tokens, width) of packed rows, and the loss of the second one."""
        batch = collate(rows)
        before, own = (len(collate.labelled(row)[0]) for row in rows[:2])
        labels = collate.no_labels(len(batch["labels"]))
        labels[before : before + own] = batch["labels"][before : before + own]
        batch["labels"] = labels
        with self._packing.applied(self._model, self._precision):
            return self._run(batch)

    def _run(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        device = next(self._model.parameters()).device
        loss = self._packed_loss if PLACES in batch else self._loss
        with autocast(device, self._precision), _states(self._model) as found:
            total = loss(self._model, on_device(batch, device)).total
        return found[0][0].float(), total.float()


@contextmanager
def _states(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Context manager: the states (rows, tokens, width) behind all layers, without virtual tokens.

    They are the outputs of the module that has the list of layers.
    """
    found: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output if isinstance(output, torch.Tensor) else output[0])

    first = layers_of(model)[0]
    owner = next(
        module
        for module in model.modules()
        if any(isinstance(one, nn.ModuleList) and first in list(one) for one in module.children())
    )
    hook = owner.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def _short_rows(lengths: Sequence[int]) -> list[int]:
    """Return three rows of at most LENGTH tokens, the longest of these."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    short = [row for row in order if lengths[row] <= LENGTH]
    chosen = short[-3:] if len(short) >= 3 else order[:3]
    return (chosen * 3)[:3]


def _reversed(row: TokenRow) -> TokenRow:
    return {**row, "input_ids": row["input_ids"][::-1].copy()}
