"""The graphed engine: Hugging Face's Trainer whose training step replays one CUDA graph per length bucket."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.engines import stock
from peft_methods.engines.attention import capturable_attention
from peft_methods.engines.base import Training, free_workspaces
from peft_methods.engines.batches import BucketCollator, buckets_of
from peft_methods.engines.casting import frozen_cast
from peft_methods.engines.graphs import ReplayedAdamW, StepGraphs
from peft_methods.engines.layers import compiled
from peft_methods.errors import EngineUnfit


class GraphedTrainer(stock.StockTrainer):
    """The stock Trainer's loop, callbacks, schedule and judging; forward, backward, clipping and AdamW are replayed.

    Mixed precision is part of the captured step, so the Trainer's own is off. Callbacks find no gradients:
    they live within the step.
    """

    autocasts = False

    compile_layers = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        collate: Any = self.data_collator  # type: ignore[has-type]
        size = self.args.per_device_train_batch_size
        self.data_collator = BucketCollator(
            collate, size, buckets_of(self.train_dataset.lengths, collate.length)
        )
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        assert issubclass(ReplayedAdamW, kind), (
            f"{kind.__name__} is not what the graphed engine replays"
        )
        self.optimizer_cls_and_kwargs = (ReplayedAdamW, settings)
        self._graphs: StepGraphs | None = None
        self._cast: list[nn.Parameter] = []  # what the graphs read
        self._loss_scale: dict[str, Any] = {}
        self.add_callback(_Capture(self))

    def capture(self) -> None:
        """Compile and capture every bucket's step. Raises `EngineUnfit`, after which this process's GPU state is not to be trusted."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        assert isinstance(optimizer, ReplayedAdamW)
        assert isinstance(self.model, nn.Module)
        assert isinstance(self.data_collator, BucketCollator)
        columns = self.train_dataset[0]
        graphs = StepGraphs(
            self.model,
            optimizer,
            batch_size=self.args.per_device_train_batch_size,
            padding={
                name: value for name, value in self.data_collator.padding.items() if name in columns
            },
            buckets=self.data_collator.buckets,
            precision=self.budget.precision,
            accumulation=self.args.gradient_accumulation_steps,
            max_grad_norm=self.args.max_grad_norm,
            extra_loss=self.method.penalty,
        )
        try:
            precision = self.budget.precision
            with (
                frozen_cast(self.model, precision) as self._cast,
                compiled(self.model, on=self.compile_layers),
                capturable_attention(self.model, precision),
            ):
                graphs.capture()
        except Exception as error:
            raise EngineUnfit(
                f"the training step could not be captured: {type(error).__name__}: {error}"
            ) from error
        if graphs.loss_scale is not None:
            graphs.loss_scale.put_back(**self._loss_scale)
        self._graphs = graphs
        self.listener.engine_keeps(self._cast)

    def loss_scale(self) -> dict[str, Any]:
        """fp16's loss scale as JSON values; empty without one."""
        assert self._graphs is not None
        return {} if self._graphs.loss_scale is None else self._graphs.loss_scale.state()

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Have it put back once the steps are captured."""
        self._loss_scale = values

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Replay the batch's graph; returns its loss, a tensor that the next step overwrites."""
        assert self._graphs is not None, "on_train_begin captures"
        last = bool(self.accelerator.sync_gradients)
        self._graphs.replay(
            inputs, last=last, rows=self._rows_of_step, batches=self._batches_of_step
        )
        if last and self._graphs.loss_scale is not None and bool(self._graphs.loss_scale.overflow):
            assert self.lr_scheduler is not None
            self.lr_scheduler.last_epoch -= (
                1  # a step that overflowed is none: the schedule waits, as the Trainer's does
            )
        return self._graphs.scalars.loss

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """The eager worst step needs the optimizer's true step: its state is part of the method's peak."""
        assert isinstance(optimizer, ReplayedAdamW)
        optimizer.send_rates()
        optimizer.launch()

    def take_sums(self) -> tuple[float, int]:
        """Cross-entropy (nats) of all rows since last asked, and how many of them were right."""
        assert self._graphs is not None
        return self._graphs.scalars.take_sums()

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        assert self._graphs is not None
        return self._graphs.scalars.norm  # clipped within the step

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return grad_norm


class _Capture(TrainerCallback):
    """Captures once optimizer and schedule are there and a checkpoint's state is loaded; keeps memory for what was captured."""

    def __init__(self, trainer: GraphedTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """All that a step needs is there."""
        if torch.cuda.is_available():
            free_workspaces()  # captured steps have a stream, and so a workspace, of their own
            torch.cuda.empty_cache()  # what the warm-up left reserved would be reserved twice
        self._trainer.listener.enter("capture")
        self._trainer.capture()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The epoch before was judged with memory that captured steps, which have a pool of their own, cannot use."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def train(*arguments: Any, **options: Any) -> Training:
    """As `stock.train`, with captured steps."""
    return stock.train(*arguments, trainer_class=GraphedTrainer, **options)
