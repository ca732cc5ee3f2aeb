"""The cuda_graphs engine: Hugging Face's Trainer whose training step replays a CUDA graph.

There is one graph for each length bucket.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.models.workspaces import free_cublas_workspaces
from peft_methods.training.collate import BucketCollator, length_buckets
from peft_methods.training.cuda_graphs.attention import capturable_attention
from peft_methods.training.cuda_graphs.compat import step_did_not_count
from peft_methods.training.cuda_graphs.compile import compiled
from peft_methods.training.cuda_graphs.frozen_cast import frozen_cast
from peft_methods.training.cuda_graphs.optimizer import ReplayedAdamW
from peft_methods.training.cuda_graphs.step import StepGraphs
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit


class CudaGraphsTrainer(loop.RunTrainer):
    """The trainer engine's loop, callbacks, schedule and evaluation, with replayed training steps.

    Forward pass, backward pass, clipping and AdamW are replayed from a CUDA graph. Mixed precision
    is part of the captured step, so the Trainer's mixed precision is off. Callbacks see no
    gradients: they exist only within the step.
    """

    autocasts = False

    compile_layers = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        collate: Any = self.data_collator  # type: ignore[has-type]
        size = self.args.per_device_train_batch_size
        self.data_collator = BucketCollator(
            collate,
            size,
            length_buckets(self.train_dataset.lengths, collate.length),
            self.train_dataset.label_shape,
        )
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        assert issubclass(ReplayedAdamW, kind), (
            f"the cuda_graphs engine cannot replay {kind.__name__}"
        )
        self.optimizer_cls_and_kwargs = (ReplayedAdamW, settings)
        self._graphs: StepGraphs | None = None
        self._cast: list[nn.Parameter] = []  # the graphs read these copies
        self._loss_scale: dict[str, Any] = {}
        self.add_callback(_Capture(self))

    def capture(self) -> None:
        """Compile and capture every bucket's step.

        Raises `EngineUnfit` if that fails. Do not use the GPU in this process afterwards: its state
        is undefined.
        """
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
            precision=self.job.recipe.budget.precision,
            accumulation=self.args.gradient_accumulation_steps,
            max_grad_norm=self.args.max_grad_norm,
            loss=self.job.task.loss,
            penalty=self.job.method.penalty,
            no_labels=self.data_collator.no_labels,
        )
        try:
            precision = self.job.recipe.budget.precision
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
            graphs.loss_scale.restore(**self._loss_scale)
        self._graphs = graphs
        self.observer.record_engine_tensors(self._cast)

    def loss_scale(self) -> dict[str, Any]:
        """Return the fp16 loss scale as JSON values; empty for other precisions."""
        assert self._graphs is not None
        return {} if self._graphs.loss_scale is None else self._graphs.loss_scale.state()

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Store the loss scale. It is restored once the steps are captured."""
        self._loss_scale = values

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Replay the batch's graph. Return its loss, a tensor that the next step overwrites."""
        assert self._graphs is not None, "on_train_begin captures the steps"
        last = bool(self.accelerator.sync_gradients)
        self._graphs.replay(
            inputs, last=last, examples=self._examples_of_step, batches=self._batches_of_step
        )
        if last and self._graphs.loss_scale is not None and bool(self._graphs.loss_scale.overflow):
            # A step that overflowed does not count: the schedule waits, as with the Trainer.
            step_did_not_count(self.lr_scheduler)
        return self._graphs.scalars.loss

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Run the real optimizer step, for the eager peak step.

        Its state is part of the method's memory peak.
        """
        assert isinstance(optimizer, ReplayedAdamW)
        optimizer.send_rates()
        optimizer.launch()

    def take_sums(self) -> tuple[float, int | None]:
        """Return the summed loss and the number of right answers, if any. Reset both."""
        assert self._graphs is not None
        return self._graphs.scalars.take_sums()

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        assert self._graphs is not None
        return self._graphs.scalars.norm  # the captured step clips

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return grad_norm


class _Capture(TrainerCallback):
    """Captures the steps when optimizer, schedule and checkpoint are loaded, and frees memory.

    Memory cached outside the captured steps' pool is freed, because the steps cannot use it.
    """

    def __init__(self, trainer: CudaGraphsTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Capture the steps."""
        if torch.cuda.is_available():
            free_cublas_workspaces()  # captured steps use another stream, and so another workspace
            torch.cuda.empty_cache()  # else memory reserved by the warm-up is reserved twice
        self._trainer.observer.enter("capture")
        self._trainer.capture()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Free memory cached by the last evaluation. Captured steps use a separate pool."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
