"""A whole training step (forward, backward, clipping, optimizer) as one CUDA graph a bucket; without a GPU as plain calls."""

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

GROWTH_INTERVAL = (
    2000  # steps without overflow before the loss scale doubles, as in torch.amp.GradScaler
)
FIRST_LOSS_SCALE = 65536.0


class ReplayedAdamW(torch.optim.AdamW):
    """AdamW whose step is part of a captured one: `step` does nothing, `launch` is what is captured.

    Rates stay plain numbers in the groups, where schedulers and callbacks write them; `send_rates` takes them to the device.
    Its fused kernel divides gradients by `grad_scale`, which clips them in passing, and does nothing where `found_inf` is 1.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.grad_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None
        self._rates: list[torch.Tensor] = []
        self._sent: list[float] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing: the replay did it."""

    def launch(self) -> None:
        """AdamW's step at the rates last sent."""
        plain = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, rate.is_cuda
        super().step()
        for group, rate in zip(self.param_groups, plain, strict=True):
            group["lr"] = rate

    def send_rates(self, rates: Sequence[float] | None = None) -> None:
        """Put these rates, or those of the groups, where `launch` reads them; the host does not wait."""
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
    """What a step reads and writes beside its batch, at fixed addresses.

    `per_row`: 1 over the rows of the optimizer step; `share`: 1 over its batches. `loss` is this batch's share of the
    step's, `loss_sum` the cross-entropy of all rows and `right` how many were right since they were last set to 0, `norm` the
    gradients' before clipping.
    """

    device: torch.device
    per_row: torch.Tensor = field(init=False)
    share: torch.Tensor = field(init=False)
    loss: torch.Tensor = field(init=False)
    loss_sum: torch.Tensor = field(init=False)
    right: torch.Tensor = field(init=False)
    norm: torch.Tensor = field(init=False)
    _sent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("per_row", "share", "loss", "loss_sum", "right", "norm"):
            setattr(self, name, torch.zeros((), device=self.device))

    def take_sums(self) -> tuple[float, int]:
        """Cross-entropy (nats) of all rows since last asked, and how many of them were right."""
        sums = float(self.loss_sum), int(self.right)
        self.loss_sum.zero_()
        self.right.zero_()
        return sums

    def send(self, **values: float) -> None:
        """Write these where steps read them, if they changed."""
        for name, value in values.items():
            if self._sent.get(name) != value:
                getattr(self, name).fill_(value)
                self._sent[name] = value


class LossScale:
    """fp16's: the loss times a factor that halves on overflow and doubles after many steps without (Micikevicius et al. 2018)."""

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), FIRST_LOSS_SCALE, device=device)
        self.overflow = torch.zeros((), device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[torch.Tensor]) -> None:
        """Divide by the factor and note whether one was not finite."""
        self.overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(
            list(gradients), self.overflow, self.factor.reciprocal()
        )

    def update(self) -> None:
        """After the optimizer's step."""
        torch._amp_update_scale_(
            self.factor, self._good_steps, self.overflow, 2.0, 0.5, GROWTH_INTERVAL
        )

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {"factor": float(self.factor), "good_steps": int(self._good_steps)}

    def put_back(self, factor: float = FIRST_LOSS_SCALE, good_steps: int = 0) -> None:
        """What `state` gave, or the beginning, where captured steps read it."""
        self.factor.fill_(factor)
        self._good_steps.fill_(good_steps)


class StepGraphs:
    """Captured steps of one model and optimizer: `capture` once, then `replay` per batch."""

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
        self._kinds = (
            (True,) if accumulation == 1 else (False, True)
        )  # is it the last batch of an optimizer step
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
        """Warm up the longest and the shortest bucket, then capture all, the longest first; weights, optimizer, random state stay.

        The idle batches have no labels and the rates are 0, so gradients are 0 and no weight moves. All that compiles does so
        before the first capture, since code compiled during one would break it; what is compiled for two lengths serves those between.
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
        self._put_back(state)
        if self.loss_scale is not None:
            self.loss_scale.put_back()
        self.scalars.take_sums()

    def _all_steps(self) -> list[tuple[int, bool]]:
        return [(bucket, last) for bucket in self._batches for last in self._kinds]

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
        """One batch of an optimizer step of `rows` rows in `batches` batches; the host does not wait for the device."""
        bucket = batch["input_ids"].shape[1]
        for name, place in self._batches[bucket].items():
            place.copy_(batch[name], non_blocking=True)
        self.scalars.send(per_row=1 / rows, share=1 / batches)
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
            loss = loss + extra * scalars.share
        scalars.loss_sum.add_(total.detach())
        scalars.right.add_((logits.detach().argmax(-1) == labels).sum())  # no class is NO_LABEL
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
        """None before a step of one batch, so that autograd need not add; buffers that last where batches are added up."""
        for index, parameter in enumerate(self._parameters):
            parameter.grad = self._gradients[index] if self._gradients else None

    def _put_back(self, state: Mapping[Any, Mapping[str, torch.Tensor]]) -> None:
        """The optimizer's state as it was, at the addresses that steps use; all zero if there was none."""
        for parameter, values in self.optimizer.state.items():
            for name, tensor in values.items():
                known = state.get(parameter, {}).get(name)
                tensor.zero_() if known is None else tensor.copy_(known)
        if not self._gradients:
            self._set_gradients()
