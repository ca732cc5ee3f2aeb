"""The Trainer of one rank: its share of each batch, and gradients as of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedDataParallelKwargs
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from peft_methods.models import ranks
from peft_methods.training.collate import on_device
from peft_methods.training.distributed.batches import WHOLE, RankCollator
from peft_methods.training.engine import Observer, TrainingJob
from peft_methods.training.trainer.loop import RunTrainer


class RankTrainer(RunTrainer):
    """The trainer of one of several ranks. Their steps are together those of one GPU.

    Every rank draws the same batches in the same order. Gradients are averaged over ranks, so a
    rank's loss is scaled by their number: the sum over the whole batch is divided by its examples.
    """

    def __init__(self, job: TrainingJob, arguments: TrainingArguments, observer: Observer) -> None:
        super().__init__(job, arguments, observer)
        collate: Any = self.data_collator  # type: ignore[has-type]
        self.data_collator = RankCollator(job.task, collate)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return whole batches, as on one GPU; the collator takes this rank's share."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._get_train_sampler(self.train_dataset),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=self.accelerator.use_seedable_sampler,
            data_seed=self.args.data_seed,
            non_blocking=self.accelerator.non_blocking,
        )
        return prepared

    def wrap(self, batch: dict[str, Any]) -> None:
        """Wrap a model that each rank holds whole, so that gradients are exchanged.

        A step on a batch shows whether every trained weight has a gradient. Where one has none,
        looking for it costs time in each step.
        """
        if ranks.is_sharded(self.model):
            return
        with torch.random.fork_rng():
            self.model.train()
            inputs = on_device(batch, self.accelerator.device)
            torch.autograd.backward(self.compute_loss(self.model, inputs))
        idle = any(p.requires_grad and p.grad is None for p in self.model.parameters())
        self.model.zero_grad(set_to_none=True)
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=idle, gradient_as_bucket_view=True, broadcast_buffers=False
        )
        self.model_wrapped = self.accelerator.prepare_model(self.model)

    def examples_in(self, batches: Sequence[dict[str, Any]]) -> int:
        """Return the examples of all ranks in these batches."""
        return sum(batch.pop(WHOLE) for batch in batches)

    def share_of_step(self, examples: int) -> float:
        """Return the weight of a batch with this number of examples in the optimizer step."""
        return super().share_of_step(examples) * ranks.count()

    def take_sums(self) -> tuple[float, int | None]:
        """Return the sums of all ranks. Reset this rank's."""
        loss, correct = super().take_sums()
        total, right = ranks.summed([loss, correct or 0])
        return total, None if correct is None else int(right)

    def take_processed_tokens(self) -> int:
        """Return the tokens of all ranks since the last call."""
        return int(ranks.summed([super().take_processed_tokens()])[0])
