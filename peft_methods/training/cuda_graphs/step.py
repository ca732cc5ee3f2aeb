"""A whole training step (forward, backward, clipping, optimizer) as one CUDA graph per bucket.

Without a GPU the step is called directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from peft_methods.tasks.base import Batch, LossSum
from peft_methods.training.cuda_graphs.optimizer import ReplayedAdamW
from peft_methods.training.cuda_graphs.scalars import LossScale, Scalars
from peft_methods.training.precision import autocast


class StepGraphs:
    """Captured steps of one model and optimizer. Call `capture` once, then `replay` per batch."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: ReplayedAdamW,
        *,
        batches: Iterable[Mapping[str, torch.Tensor]],
        precision: str,
        accumulation: int,
        max_grad_norm: float,
        loss: Callable[[nn.Module, Batch], LossSum],
        penalty: Callable[[nn.Module], torch.Tensor | None],
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Prepare steps for the shapes of these batches, which have no labels.

        A batch is known by the number of columns of its token ids. Steps are captured within the
        context manager `around`, and without a GPU they are called within it.
        """
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device
        self.scalars = Scalars(self.device)
        self.loss_scale = LossScale(self.device) if precision == "fp16" else None
        self._precision, self._max_grad_norm = precision, max_grad_norm
        self._loss, self._penalty, self._around = loss, penalty, around
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        # Whether a batch is the last of its optimizer step: the values to capture a graph for.
        self._last_flags = (True,) if accumulation == 1 else (False, True)
        self._gradients = (
            [torch.zeros_like(p) for p in self._parameters] if accumulation > 1 else []
        )
        by_length = {batch["input_ids"].shape[1]: batch for batch in batches}
        self._batches = {
            length: {name: tensor.to(self.device) for name, tensor in by_length[length].items()}
            for length in sorted(by_length, reverse=True)
        }
        self._replays: dict[tuple[int, bool], Callable[[], Any]] = {}

    def capture(self) -> None:
        """Warm up the longest and the shortest bucket, then capture all, the longest first.

        Weights, optimizer state and random state are the same afterwards: the batches have no
        labels and the rates are 0, so gradients are 0 and no weight changes. All compilation
        happens in the warm-up, since compiling during a capture would break it. Code compiled for
        the two extreme lengths also serves the lengths in between.
        """
        state = {
            p: {k: v.clone() for k, v in values.items()}
            for p, values in self.optimizer.state.items()
        }
        self.model.train()
        self._set_gradients()
        self.optimizer.send_rates([0.0] * len(self.optimizer.param_groups))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self._around():
            if self.device.type == "cuda":
                self._capture_graphs()
            else:
                self._warm_up()
                self._replays = {step: partial(self._call, *step) for step in self._all_steps()}
        self._restore_optimizer_state(state)
        if self.loss_scale is not None:
            self.loss_scale.restore()
        self.scalars.take_sums()

    def _all_steps(self) -> list[tuple[int, bool]]:
        return [(bucket, last) for bucket in self._batches for last in self._last_flags]

    def _warm_up(self) -> None:
        extremes = {max(self._batches), min(self._batches)}
        for bucket, last in self._all_steps():
            if bucket in extremes:
                self._step(bucket, last)

    def _capture_graphs(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._warm_up()
        torch.cuda.synchronize()
        pool = torch.cuda.graph_pool_handle()
        with torch.compiler.set_stance("fail_on_recompile"):
            for bucket, last in self._all_steps():
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=stream):
                    self._step(bucket, last)
                self._replays[bucket, last] = graph.replay
        torch.cuda.synchronize()

    def replay(
        self, batch: Mapping[str, torch.Tensor], *, last: bool, examples: int, batches: int
    ) -> None:
        """Replay one batch of an optimizer step of that many examples and batches.

        The host does not wait for the device.
        """
        bucket = batch["input_ids"].shape[1]
        for name, tensor in self._batches[bucket].items():
            tensor.copy_(batch[name], non_blocking=True)
        self.scalars.send(per_example=1 / max(1, examples), per_batch=1 / batches)
        if last:
            self.optimizer.send_rates()
        self._replays[bucket, last]()

    def _call(self, bucket: int, last: bool) -> None:
        with self._around():
            self._step(bucket, last)

    def _step(self, bucket: int, last: bool) -> None:
        batch, scalars = self._batches[bucket], self.scalars
        with autocast(self.device, self._precision, cached=False):
            found = self._loss(self.model, batch)
        loss = found.total * scalars.per_example
        extra = self._penalty(self.model)
        if extra is not None:
            loss = loss + extra * scalars.per_batch
        scalars.loss_sum.add_(found.total.detach())
        if found.correct is not None:
            scalars.correct.add_(found.correct)
            scalars.has_correct = True
        scalars.loss.copy_(loss.detach())
        torch.autograd.backward(loss if self.loss_scale is None else loss * self.loss_scale.factor)
        if last:
            self._update()

    def _update(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.loss_scale is not None:
            self.loss_scale.unscale(gradients)
            self.optimizer.found_inf = self.loss_scale.overflow
        if self._max_grad_norm > 0:
            self.scalars.norm.copy_(nn.utils.get_total_norm(gradients))
            self.optimizer.grad_scale = ((self.scalars.norm + 1e-6) / self._max_grad_norm).clamp(
                min=1
            )
        self.optimizer.launch()
        if self.loss_scale is not None:
            self.loss_scale.update()
        if self._gradients:
            torch._foreach_zero_(self._gradients)
        else:
            self._set_gradients()

    def _set_gradients(self) -> None:
        """Reset all gradients before a step.

        Without accumulation they are None, so autograd need not add. With accumulation they are
        permanent buffers.
        """
        for index, parameter in enumerate(self._parameters):
            parameter.grad = self._gradients[index] if self._gradients else None

    def _restore_optimizer_state(self, state: Mapping[Any, Mapping[str, torch.Tensor]]) -> None:
        """Restore the optimizer state in place, since steps use its addresses.

        State that did not exist before is set to zero.
        """
        for parameter, values in self.optimizer.state.items():
            for name, tensor in values.items():
                known = state.get(parameter, {}).get(name)
                tensor.zero_() if known is None else tensor.copy_(known)
        if not self._gradients:
            self._set_gradients()
