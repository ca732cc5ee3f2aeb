"""The cuda_graphs engine: Hugging Face's Trainer whose training step replays a CUDA graph.

There is one graph for each length bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.models.families import family_of
from peft_methods.models.loading import first_position
from peft_methods.models.projection import transformers_model
from peft_methods.models.workspaces import free_cublas_workspaces
from peft_methods.tasks.base import LossSum
from peft_methods.tasks.collate import BORDERS
from peft_methods.training.collate import (
    BucketCollator,
    TrainingCollator,
    length_buckets,
    make_collator,
)
from peft_methods.training.cuda_graphs.attention import capturable_attention
from peft_methods.training.cuda_graphs.compat import step_did_not_count
from peft_methods.training.cuda_graphs.compile import compiled, compiling_problem
from peft_methods.training.cuda_graphs.frozen_cast import frozen_cast, half_frozen
from peft_methods.training.cuda_graphs.optimizer import ReplayedAdamW
from peft_methods.training.cuda_graphs.packed_attention import PackedAttention, has_kernel
from peft_methods.training.cuda_graphs.packed_check import PackedCheck
from peft_methods.training.cuda_graphs.step import StepGraphs
from peft_methods.training.cuda_graphs.token_batches import TokenCollator, watched_batches
from peft_methods.training.engine import Observer, TrainingJob, replay_problem
from peft_methods.training.precision import autocast
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit, first_line


class CudaGraphsTrainer(loop.RunTrainer):
    """The trainer engine's loop, callbacks, schedule and evaluation, with replayed training steps.

    Forward pass, backward pass, clipping and AdamW are replayed from a CUDA graph. Mixed precision
    is part of the captured step, so the Trainer's mixed precision is off. Callbacks see no
    gradients: they exist only within the step.
    """

    autocasts = False

    compile_layers = True
    packs_encoders = False  # also without a kernel for it

    def __init__(self, job: TrainingJob, arguments: TrainingArguments, observer: Observer) -> None:
        if problem := replay_problem(job.method):
            raise EngineUnfit(problem)
        if self.compile_layers and (problem := compiling_problem(job.model)):
            raise EngineUnfit(f"with {job.method.title}, {problem}")
        super().__init__(job, arguments, observer)
        self._is_decoder = family_of(self.job.model.config) == "decoder"
        self.packing: PackedAttention | None = None
        self._collate = self.data_collator = self._collator()
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        assert issubclass(ReplayedAdamW, kind), (
            f"the cuda_graphs engine cannot replay {kind.__name__}"
        )
        self.optimizer_cls_and_kwargs = (ReplayedAdamW, settings)
        self._graphs: StepGraphs | None = None
        self._cast: list[nn.Parameter] = []  # the graphs read these copies
        self._loss_scale: dict[str, Any] = {}
        self.add_callback(_Capture(self))

    def _collator(self) -> BucketCollator | TokenCollator:
        """Return the collator of batches of few shapes: of packed tokens, or of padded rows.

        Encoders are packed where there is a kernel for it. With a mask, rows are faster.
        """
        job, rows = self.job, self.job.data.train
        collate = make_collator(job.recipe, job.tokenizer)
        if self._is_decoder or (
            job.recipe.budget.padding != "fixed"
            and (self.packs_encoders or has_kernel(job.model, job.recipe.budget.precision))
        ):
            pooled, first = -1 if self._is_decoder else 0, first_position(job.model.config)
            pack = partial(TokenCollator, collate, rows, pooled=pooled, first=first)
            packed = self._packed(pack)
            self.packing = PackedAttention(packed.longest)
            check = PackedCheck(job.model, job.task, self.packing, job.recipe.budget.precision)
            if (problem := check.problem(rows, pack, collate)) is None:
                return packed
            if self._is_decoder:
                raise EngineUnfit(
                    f"{type(transformers_model(job.model)).__name__} with {job.method.title} "
                    f"cannot be trained on packed tokens: {problem}"
                )
            self.packing = None
        buckets = length_buckets(rows.lengths, collate.length)
        return BucketCollator(
            collate, self.args.per_device_train_batch_size, buckets, rows.label_shape
        )

    def _packed(self, pack: Callable[..., TokenCollator]) -> TokenCollator:
        """Return the collator of packed batches; its buckets are those of the first batches."""
        size, state = self.args.per_device_train_batch_size, self.order.get_state()
        packed = pack(watched_batches(self._get_train_sampler(), size), size=size)
        self.order.set_state(state)
        return packed

    def _empty_batches(self) -> list[dict[str, torch.Tensor]]:
        if isinstance(self._collate, TokenCollator):
            return [self._collate.empty(bucket) for bucket in self._collate.buckets]
        columns = self.train_dataset[0]
        return [self._collate.empty(bucket, columns) for bucket in self._collate.buckets]

    def capture(self) -> None:
        """Compile and capture every bucket's step.

        Raises `EngineUnfit` if that fails. Do not use the GPU in this process afterwards: its state
        is undefined.
        """
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        assert isinstance(optimizer, ReplayedAdamW)
        assert isinstance(self.model, nn.Module)
        precision, packing = self.job.recipe.budget.precision, self.packing
        attention = capturable_attention if packing is None else packing.applied
        graphs = StepGraphs(
            self.model,
            optimizer,
            batches=self._empty_batches(),
            precision=precision,
            accumulation=self.args.gradient_accumulation_steps,
            max_grad_norm=self.args.max_grad_norm,
            loss=self.task_loss,
            penalty=self.job.method.penalty,
            around=partial(attention, self.model, precision),
        )
        try:
            with (
                frozen_cast(
                    self.model,
                    precision,
                    on=not self._is_decoder,
                    reads_weights=self.job.method.info.reads_weights,
                ) as self._cast,
                self.compiling(),
            ):
                graphs.capture()
        except Exception as error:
            raise EngineUnfit(
                f"the training step could not be captured: {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
        if graphs.loss_scale is not None:
            graphs.loss_scale.restore(**self._loss_scale)
        self._graphs = graphs
        self.observer.record_engine_tensors(self._cast)

    def compiling(self) -> AbstractContextManager[None]:
        """Context manager: layers are compiled. Those of decoders compute cheap values again."""
        assert isinstance(self.model, nn.Module)
        return compiled(self.model, on=self.compile_layers, recomputes=self._is_decoder)

    def task_loss(self, model: nn.Module, inputs: Any) -> LossSum:
        """Return the task's loss of a batch, which may be packed."""
        own = self.job.task.loss
        if self.packing is None or BORDERS not in inputs:
            return own(model, inputs)
        return self.packing.loss(own)(model, inputs)

    def computing(self) -> AbstractContextManager[Any]:
        """Context manager of losses outside the captured steps, in the same state."""
        if not self._is_decoder:
            return super().computing()
        return autocast(self.args.device, self.job.recipe.budget.precision, cached=False)

    def holding_weights(self) -> AbstractContextManager[Any]:
        """Context manager around the training: frozen weights of decoders are in half precision."""
        return self._half_frozen() if self._is_decoder else super().holding_weights()

    @contextmanager
    def _half_frozen(self) -> Iterator[None]:
        """Context manager: as `half_frozen`. The originals come back when the graphs are freed."""
        method, precision = self.job.method, self.job.recipe.budget.precision
        with half_frozen(self.job.model, precision, reads_weights=method.info.reads_weights):
            try:
                yield
            finally:
                self._graphs = None

    @contextmanager
    def warming_up(self) -> Iterator[TrainingCollator]:
        """Context manager around the warm-up. Decoders have compiled steps on packed batches.

        An eager step on padded batches would need much more memory than captured ones.
        """
        if self.packing is None or not self._is_decoder:
            with super().warming_up() as collate:
                yield collate
            return
        model, precision = self.job.model, self.job.recipe.budget.precision
        try:
            with self.compiling(), self.packing.applied(model, precision):
                yield self._collate
        except (torch.OutOfMemoryError, EngineUnfit):
            raise
        except Exception as error:
            raise EngineUnfit(
                f"the training step could not be compiled: {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error

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

    def loss_so_far(self) -> torch.Tensor | float:
        """Return the summed loss since the last `take_sums`, on the device."""
        assert self._graphs is not None
        return self._graphs.scalars.loss_sum.clone()  # later steps overwrite it

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
