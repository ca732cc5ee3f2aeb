"""The warm-up before training: whole steps that change no weight, the last on the longest rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from peft_methods.models import ranks
from peft_methods.models.decoder_sizes import shares_keys
from peft_methods.training.collate import TrainingCollator, on_device
from peft_methods.training.distributed.communication import communication_seconds
from peft_methods.training.engine import NoTrace, Observer, PeakStep, TrainingJob
from peft_methods.training.precision import HALF


class WarmedTrainer(Protocol):
    """The members of a trainer that the warm-up uses."""

    job: TrainingJob
    model_wrapped: Any
    optimizer: Any

    def wrap(self, batch: dict[str, Any]) -> None:
        """Wrap the model to exchange gradients with other ranks, if there are any."""

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Create the optimizer."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the loss of a batch."""

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Run one optimizer step outside the Trainer's loop."""


def warm_up(trainer: WarmedTrainer, collate: TrainingCollator, observer: Observer) -> float | None:
    """Run whole steps on the longest batches, the worst case for memory.

    The first one creates the optimizer state (`_first_rows`), which exists in the peak step that
    follows. Where two batches may be the worst (`worst_batches`), each is a peak step.

    Gradients are zeroed before the optimizer step and the learning rate is 0, so no weight changes.
    The random state is restored and the optimizer discarded, so training is the same with and
    without the warm-up. With accumulation, gradients exist from the second batch of a step on; here
    they exist as zeros.

    With several ranks each has a share of the batch, and a third step follows: its communication
    is returned in seconds.
    """
    rows, budget = trainer.job.data.train, trainer.job.recipe.budget
    chosen = _chosen_batches(trainer.job, packs=collate.packs)
    batches = [collate([rows[row] for row in one]) for one in chosen]
    batch = batches[0]
    trainer.wrap(batch)
    model = trainer.model_wrapped
    assert isinstance(model, nn.Module)
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def free_gradients() -> None:
        if budget.gradient_accumulation == 1:
            model.zero_grad(set_to_none=True)

    few = _first_rows(trainer.job, chosen[0])
    first = batch if few == chosen[0] else collate([rows[row] for row in few])
    with torch.random.fork_rng():
        model.train()
        idle_step(trainer, first, optimizer, NoTrace())
        free_gradients()  # before the trace begins: it counts what is there
        for one in batches:
            with observer.peak_step(model, optimizer) as trace:
                idle_step(trainer, one, optimizer, trace)
            free_gradients()
        seconds = communication_seconds(lambda: idle_step(trainer, batch, optimizer, NoTrace()))
    model.zero_grad(set_to_none=True)
    trainer.optimizer = None
    return seconds


def _chosen_batches(job: TrainingJob, *, packs: bool) -> list[list[int]]:
    """Return the rows of the batches of which one is the worst case for memory.

    A second one is tried where it may be: on a GPU, with heads that share keys, in 32 bits.
    """
    lengths, budget = job.data.train.lengths, job.recipe.budget
    size = budget.batch_size // ranks.count()
    if packs:  # there is no mask
        return [longest_rows(lengths)[:size]]
    width = job.recipe.data.max_length if budget.padding == "fixed" else 0
    found = worst_batches(lengths, size, width=width)
    config: Any = getattr(job.model, "config", None)
    tries_both = job.device != "cpu" and budget.precision not in HALF and shares_keys(config)
    return found if tries_both else found[:1]


def _first_rows(job: TrainingJob, chosen: list[int]) -> list[int]:
    """Return the rows of the first step, which creates the optimizer state.

    Two of the peak step's are enough on a CPU. On a GPU libraries choose algorithms and allocate
    workspaces by the shape of a batch, ranks exchange what a whole one gives, and stored features
    are checked with the first batch: there the first step has all rows.
    """
    if job.device != "cpu" or ranks.count() > 1 or job.method.info.stores_features:
        return chosen
    return list(dict.fromkeys((chosen[0], chosen[-1])))


def worst_batches(lengths: Sequence[int], size: int, *, width: int) -> list[list[int]]:
    """Return the rows of the padded batches of which one needs the most memory: the longest ones.

    Rows are padded to `width`, or with 0 to the longest row. A batch with padding has an attention
    mask, which takes memory. So if no row would be padded, the last one is replaced by a shorter
    row. The batch as it was comes second. Where heads share keys and values it may need more: with
    a mask they are repeated for each head, but without one, in 32 bits, torch has no kernel for
    them and stores the scores of all pairs of tokens.
    """
    by_length = longest_rows(lengths)
    longest, others = by_length[:size], by_length[size:]
    full = width or lengths[longest[0]]
    shorter = next((row for row in others if lengths[row] < full), None)
    if size > 1 and shorter is not None and lengths[longest[-1]] == full:
        return [[*longest[:-1], shorter], longest]
    return [longest]


def longest_rows(lengths: Sequence[int]) -> list[int]:
    """Return the numbers of all rows, the longest first."""
    return sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)


def idle_step(
    trainer: WarmedTrainer,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    trace: PeakStep,
) -> None:
    """Run a training step that does not change any weight."""
    model, budget = trainer.model_wrapped, trainer.job.recipe.budget
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    loss = trainer.compute_loss(model, on_device(batch, device))
    torch.autograd.backward(loss)
    trace.backward_done()
    trained = [p for p in model.parameters() if p.grad is not None]
    nn.utils.clip_grad_norm_(trained, budget.max_grad_norm)
    for parameter in trained:
        assert parameter.grad is not None
        parameter.grad.zero_()
    trainer.step_optimizer(optimizer)
