"""A whole training step (forward, backward, clipping, optimizer) as one CUDA graph per bucket.

Without a GPU the step is called directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peft_methods.engines.base import HALF
from peft_methods.engines.batches import NO_LABEL

# Steps without overflow before the loss scale doubles, as in torch.amp.GradScaler.
GROWTH_INTERVAL = 2000
FIRST_LOSS_SCALE = 65536.0


class ReplayedAdamW(torch.optim.AdamW):
    """AdamW whose update is part of a captured training step.

    `step` does nothing; `launch` performs the update and is captured. Learning rates stay plain
    numbers in the parameter groups, where schedulers and callbacks write them; `send_rates` copies
    them to the device. The fused kernel divides gradients by `grad_scale`, which also clips them,
    and skips the update if `found_inf` is 1.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.grad_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None
        self._rates: list[torch.Tensor] = []
        self._sent: list[float] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing: the replayed graph has made the update."""

    def launch(self) -> None:
        """Run AdamW's step with the learning rates sent last."""
        plain = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, rate.is_cuda
        super().step()
        for group, rate in zip(self.param_groups, plain, strict=True):
            group["lr"] = rate

    def send_rates(self, rates: Sequence[float] | None = None) -> None:
        """Copy these rates, or those of the groups, to the tensors that `launch` reads.

        The host does not wait for the device.
        """
        wanted = (
            [float(group["lr"]) for group in self.param_groups] if rates is None else list(rates)
        )
        if not self._rates:
            device = self.param_groups[0]["params"][0].device
            self._rates = [torch.zeros((), device=device) for _ in self.param_groups]
        if wanted != self._sent:
            for tensor, rate in zip(self._rates, wanted, strict=True):
                tensor.fill_(rate)
            self._sent = wanted


@dataclass
class Scalars:
    """Scalar inputs and outputs of a step, at fixed addresses.

    Inputs: `per_row` is 1 / (rows of the optimizer step), `per_batch` is 1 / (its batches).
    Outputs: `loss` is this batch's part of the step's loss. `loss_sum` and `correct` are the
    cross-entropy of all rows and the number of correct rows since the last reset. `norm` is the
    gradient norm before clipping.
    """

    device: torch.device
    per_row: torch.Tensor = field(init=False)
    per_batch: torch.Tensor = field(init=False)
    loss: torch.Tensor = field(init=False)
    loss_sum: torch.Tensor = field(init=False)
    correct: torch.Tensor = field(init=False)
    norm: torch.Tensor = field(init=False)
    _sent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("per_row", "per_batch", "loss", "loss_sum", "correct", "norm"):
            setattr(self, name, torch.zeros((), device=self.device))

    def take_sums(self) -> tuple[float, int]:
        """Return the summed cross-entropy (nats) and the number of correct rows. Reset both."""
        sums = float(self.loss_sum), int(self.correct)
        self.loss_sum.zero_()
        self.correct.zero_()
        return sums

    def send(self, **values: float) -> None:
        """Write changed values to the tensors that steps read."""
        for name, value in values.items():
            if self._sent.get(name) != value:
                getattr(self, name).fill_(value)
                self._sent[name] = value


class LossScale:
    """Dynamic loss scale for fp16 (Micikevicius et al. 2018).

    The loss is multiplied by a factor. It halves on overflow and doubles after GROWTH_INTERVAL
    steps without overflow.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), FIRST_LOSS_SCALE, device=device)
        self.overflow = torch.zeros((), device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[torch.Tensor]) -> None:
        """Divide the gradients by the factor. Set `overflow` if any of them is not finite."""
        self.overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(
            list(gradients), self.overflow, self.factor.reciprocal()
        )

    def update(self) -> None:
        """Adapt the factor. Call this after the optimizer step."""
        torch._amp_update_scale_(
            self.factor, self._good_steps, self.overflow, 2.0, 0.5, GROWTH_INTERVAL
        )

    def state(self) -> dict[str, Any]:
        """Return factor and step count as JSON values."""
        return {"factor": float(self.factor), "good_steps": int(self._good_steps)}

    def restore(self, factor: float = FIRST_LOSS_SCALE, good_steps: int = 0) -> None:
        """Restore the state returned by `state`, or the initial one, in place."""
        self.factor.fill_(factor)
        self._good_steps.fill_(good_steps)


class StepGraphs:
    """Captured steps of one model and optimizer. Call `capture` once, then `replay` per batch."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: ReplayedAdamW,
        *,
        batch_size: int,
        padding: Mapping[str, int],
        buckets: Iterable[int],
        precision: str,
        accumulation: int,
        max_grad_norm: float,
        extra_loss: Callable[[nn.Module], torch.Tensor | None],
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device
        self.scalars = Scalars(self.device)
        self.loss_scale = LossScale(self.device) if precision == "fp16" else None
        self._precision, self._max_grad_norm, self._extra_loss = (
            precision,
            max_grad_norm,
            extra_loss,
        )
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        # Whether a batch is the last of its optimizer step: the values to capture a graph for.
        self._last_flags = (True,) if accumulation == 1 else (False, True)
        self._gradients = (
            [torch.zeros_like(p) for p in self._parameters] if accumulation > 1 else []
        )
        self._batches = {
            bucket: self._empty_batch(batch_size, bucket, padding)
            for bucket in sorted(buckets, reverse=True)
        }
        self._replays: dict[tuple[int, bool], Callable[[], Any]] = {}

    def _empty_batch(
        self, rows: int, bucket: int, padding: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        batch = {
            name: torch.full((rows, bucket), value, device=self.device)
            for name, value in padding.items()
        }
        batch["attention_mask"][:, 0] = 1
        return batch | {"labels": torch.full((rows,), NO_LABEL, device=self.device)}

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
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            if self.device.type == "cuda":
                self._capture_graphs()
            else:
                self._warm_up()
                self._replays = {step: partial(self._step, *step) for step in self._all_steps()}
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
        self, batch: Mapping[str, torch.Tensor], *, last: bool, rows: int, batches: int
    ) -> None:
        """Replay one batch of an optimizer step of `rows` rows in `batches` batches.

        The host does not wait for the device.
        """
        bucket = batch["input_ids"].shape[1]
        for name, tensor in self._batches[bucket].items():
            tensor.copy_(batch[name], non_blocking=True)
        self.scalars.send(per_row=1 / rows, per_batch=1 / batches)
        if last:
            self.optimizer.send_rates()
        self._replays[bucket, last]()

    def _step(self, bucket: int, last: bool) -> None:
        batch, scalars = dict(self._batches[bucket]), self.scalars
        labels = batch.pop("labels")
        with torch.autocast(
            self.device.type,
            HALF.get(self._precision),
            enabled=self._precision in HALF,
            cache_enabled=False,
        ):
            logits = self.model(**batch).logits
        total = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=NO_LABEL)
        loss = total * scalars.per_row
        extra = self._extra_loss(self.model)
        if extra is not None:
            loss = loss + extra * scalars.per_batch
        scalars.loss_sum.add_(total.detach())
        scalars.correct.add_((logits.detach().argmax(-1) == labels).sum())  # no class is NO_LABEL
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
