"""Training speed and memory of decoders with several training loops, on the same batches."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from decoder_parts import patches_undone, products_in, quantize
from scipy import stats
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from observers import Kernels, NullObserver, Window
from pace import check_devices, cudnn_attention
from peft_methods.data import synthetic, tokenize
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.selection import chosen_methods
from peft_methods.models.architecture import architecture_of
from peft_methods.models.config import load_config
from peft_methods.models.linear_layers import count_model
from peft_methods.models.padding import write_padding
from peft_methods.models.tokenizer import fetch_tokenizer
from peft_methods.profiling.flops import count_training_flops
from peft_methods.recipes.loading import load_recipe
from peft_methods.tasks.collate import NO_LABEL
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.cuda_graphs.frozen_cast import half_frozen
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import TrainingJob
from peft_methods.training.precision import set_matmul_precision
from peft_methods.training.trainer import loop

TASK = TASKS["causal_lm"]
# Token counts of chats: log-normal with the median 300, cut at 1,024 (mean about 350).
MEDIAN, SPREAD, SHORTEST, LONGEST = 300, 0.6, 16, 1024
QUANTILES = 101


def chat_lengths() -> list[int]:
    """Return evenly spaced quantiles of the token counts."""
    ranks = [(number + 0.5) / QUANTILES for number in range(QUANTILES)]
    drawn = stats.lognorm.ppf(ranks, SPREAD, scale=MEDIAN)
    return [int(min(LONGEST, max(SHORTEST, round(one)))) for one in drawn]


@dataclass(frozen=True)
class Pace:
    """What a training loop reached: real tokens a second and FLOP/s, each a median, and memory.

    `peak_bytes` is what the allocator had reserved at most, the pools of graphs included.
    """

    tokens_per_second: float
    flops_per_second: float
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.tokens_per_second:9,.0f} tokens/s  {self.flops_per_second / 1e12:5.0f} TFLOP/s"
            f"  {self.peak_bytes / 2**20:8,.0f} MiB"
        )


class InOrder:
    """Mixin of Trainers: batches are those of the data's order, the same in every epoch."""

    def _get_train_sampler(self, *_: Any) -> Any:
        trainer: Any = self
        return SequentialSampler(trainer.train_dataset)


class PlainTrainer(InOrder, Trainer):
    """Hugging Face's Trainer."""


class GraphsTrainer(InOrder, CudaGraphsTrainer):
    """The cuda_graphs engine."""


class Decoder:
    """A decoder with random weights, made on its device, and the rows of a few batches."""

    def __init__(
        self,
        source: str,
        method: str,
        batch: int,
        steps: int,
        device: str = "cuda",
        settings: Sequence[str] = (),
    ) -> None:
        check_devices(device)
        self.device, self.steps, self.batch = device, steps, batch
        own = [
            f"model.source={source}",
            "model.weights=random",
            f"data.train={batch * steps}",
            "data.validation=2",
            "data.test=2",
            f"data.max_length={LONGEST}",
            f"data.token_lengths={chat_lengths()}",
            f"budget.batch_size={batch}",
            "budget.padding=packed",
            "methods.adapter.learning_rate=1e-4",
            *settings,
        ]
        self.recipe = load_recipe("gsm8k_sft", own)
        self.method = chosen_methods(self.recipe, [method])[0]
        self.config = load_config(self.recipe.model, TASK.head)
        self.tokenizer, _ = fetch_tokenizer(self.recipe.model, self.config)
        texts = synthetic.load(self.recipe, TASK)
        self.tokens = tokenize.tokenize(texts, self.tokenizer, self.recipe.data, TASK)
        self.model = self._made()

    def _made(self) -> nn.Module:
        torch.manual_seed(0)
        with torch.device(self.device):
            model = TASK.head.auto_class().from_config(self.config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():  # like published weights, which 16 bits represent
                parameter.copy_(parameter.bfloat16())
        write_padding(self.tokenizer, model.config)
        model.config.use_cache = False
        if self.method.info.quantization:
            quantize(model, self.device)
        architecture = architecture_of(
            self.config,
            head_parameters=0,
            pooler=False,
            counted=count_model(model, ()),
            writes=True,
        )
        context = ApplyContext(architecture, (), TASK.peft_type)
        return self.method.apply(model, context)

    def job(self, folder: Path) -> TrainingJob:
        """Return the training job for the engines."""
        return TrainingJob(
            self.model,
            self.method,
            self.tokens,
            self.recipe,
            self.tokenizer,
            (),
            0,
            self.device,
            folder,
        )

    def paced(self, kind: str, folder: Path, epochs: int, *, counts_flops: bool = True) -> Pace:
        """Train `epochs` epochs and one before them that is not timed. See `Pace`.

        `kind` is "trainer", "liger" or "cuda_graphs". The model keeps Liger's kernels; its class
        does not. FLOPs are counted on eager steps, which need more memory than captured ones.
        """
        set_matmul_precision(self.recipe.budget.precision)
        made = {"trainer": self._plain, "liger": self._liger, "cuda_graphs": self._graphs}[kind]
        self._free()
        with (
            cudnn_attention(on=False),
            checkpointing(
                self.model, on=kind == "cuda_graphs" and self.recipe.budget.gradient_checkpointing
            ),
        ):
            trainer, window = made(folder, epochs + 1), Window(self.steps, self.device)
            trainer.add_callback(window)
            with (
                self._holding_weights(trainer),
                patches_undone(self.model),
                self._in_half_precision(kind),
            ):
                trainer.train()
                peak = torch.cuda.max_memory_reserved() if self.device == "cuda" else 0
        del trainer
        self._free()
        seconds = statistics.median(window.seconds)
        lengths = self.tokens.train.lengths
        flops = self._flops(folder).of(lengths, self.steps) if counts_flops else 0.0
        return Pace(sum(lengths) / seconds, flops / seconds, peak)

    def _holding_weights(self, trainer: Any) -> AbstractContextManager[Any]:
        """Context manager: frozen weights are in half precision, as the engine has them."""
        if isinstance(trainer, CudaGraphsTrainer):
            return trainer.holding_weights()
        reads = self.method.info.reads_weights
        return half_frozen(self.model, self.recipe.budget.precision, reads_weights=reads)

    def _in_half_precision(self, kind: str) -> AbstractContextManager[None]:
        """Context manager: a Trainer's products must be in 16 bits, as the engine's are.

        Where weights are in 4 bits, PEFT returns the sum with LoRA's product in 32.
        """
        if kind == "cuda_graphs" or self.method.info.quantization:
            return nullcontext()
        return products_in(torch.bfloat16, self.model)

    def kernels(self, folder: Path) -> dict[str, float]:
        """Return the milliseconds per captured step of each kernel, the slowest first."""
        set_matmul_precision(self.recipe.budget.precision)
        trainer = self._graphs(folder, 2)
        trainer.add_callback(kernels := Kernels(self.steps, self.device))
        with cudnn_attention(on=False), trainer.holding_weights():
            trainer.train()
        return kernels.milliseconds

    def _flops(self, folder: Path) -> Any:
        if not hasattr(self, "_counted"):
            self._counted = count_training_flops(self.job(folder))
        return self._counted

    def _free(self) -> None:
        self.model.zero_grad(set_to_none=True)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _graphs(self, folder: Path, epochs: int) -> GraphsTrainer:
        job = self.job(folder)
        arguments = loop.trainer_arguments(job, autocast=False)
        arguments.num_train_epochs = epochs
        return GraphsTrainer(job, arguments, NullObserver())

    def _liger(self, folder: Path, epochs: int) -> Trainer:
        return self._plain(folder, epochs, use_liger_kernel=True)

    def _plain(self, folder: Path, epochs: int, **options: Any) -> Trainer:
        budget = self.recipe.budget
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=self.batch,
            learning_rate=self.method.learning_rate,
            bf16=budget.precision == "bf16",
            gradient_checkpointing=budget.gradient_checkpointing,
            optim="adamw_torch_fused",
            use_cpu=self.device == "cpu",
            dataloader_pin_memory=self.device != "cpu",
            logging_nan_inf_filter=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            **options,
        )
        return PlainTrainer(self.model, arguments, self._collate(), self.tokens.train)

    def _collate(self) -> Callable[[Any], dict[str, torch.Tensor]]:
        """Return a collator that pads to the longest row of a batch."""
        own = TASK.collator(self.tokenizer)

        def collate(rows: Any) -> dict[str, torch.Tensor]:
            batch = own(rows)
            names = ("input_ids", "attention_mask", "labels")
            return {name: batch[name] for name in names if name in batch}

        assert NO_LABEL == -100, "which transformers ignores"
        return collate
