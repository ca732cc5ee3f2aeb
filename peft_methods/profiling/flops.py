"""FLOPs of training, counted on the graph that runs.

A few small training steps are counted with torch's `FlopCounterMode`: every matrix product of the
forward pass, and of the backward pass those whose result some trained weight needs. A product of
(a, b) by (b, c) counts 2abc. A step over other rows follows from these, since its FLOPs are a
quadratic function of the rows' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from peft_methods.models import ranks
from peft_methods.models.quantization import flop_formulas
from peft_methods.training.collate import on_device
from peft_methods.training.features import StoredFeatures
from peft_methods.training.precision import autocast
from peft_methods.utils.cache import cached_value
from peft_methods.utils.validation import adapter

if TYPE_CHECKING:
    from peft_methods.tasks.base import LossSum
    from peft_methods.training.engine import TrainingJob

MAX_COUNTED = 512  # cached results
LONGEST = 512  # tokens of a counted row, if the data has enough shorter ones


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of training steps, forward and backward.

    `per_step` are those of a step whatever its rows (products of weights alone, as of a rotation),
    `per_row` of a row (pooler, head), `per_token` of a token (linear layers), and `per_square` of a
    token beside each token of its row (attention). `later_epochs` has those of steps after the
    first epoch, if they are others.
    """

    per_step: float
    per_row: float
    per_token: float
    per_square: float
    later_epochs: TrainingFlops | None = None

    def of(self, lengths: Iterable[int], steps: int) -> float:
        """Return the FLOPs of `steps` steps over rows with these numbers of tokens.

        Padding is not counted.
        """
        tokens = np.asarray(list(lengths), dtype=np.float64)
        return float(
            self.per_step * steps
            + self.per_row * len(tokens)
            + self.per_token * tokens.sum()
            + self.per_square * (tokens**2).sum()
        )


def count_training_flops(job: TrainingJob) -> TrainingFlops:
    """Count training steps of the job's model over a few of its rows. No weight changes.

    Attention is computed as two matrix products: fused kernels repeat the forward pass in the
    backward pass, which is no work of the model (Chowdhery et al. 2022, arXiv:2204.02311,
    appendix B). Of products within other libraries' kernels, those of bitsandbytes are counted.
    """
    rows, lengths, model = job.data.train, job.data.train.lengths, job.model
    collate = job.task.collator(job.tokenizer)  # no padding, whatever the recipe's is
    short, *longer = _places_of_lengths(lengths)
    chosen = [[short], [short, short], *([place] for place in longer)]
    sizes = [[lengths[at] for at in places] for places in chosen]
    batches = [on_device(collate([rows[at] for at in places]), _device(job)) for places in chosen]
    features = StoredFeatures(job, allocates=False) if job.method.info.stores_features else None
    loss = (features or job.task).loss
    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng():
            if features is not None:
                features.encode(model, batches[-1])  # it also finds out what the head reads
            found = [_flops(partial(_step, job, loss, batch)) for batch in batches]
            if features is None:
                return _fitted(sizes, found)
            stored = [_flops(partial(features.encode, model, batch)) for batch in batches]
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    later = _fitted(sizes, [all_ - once for all_, once in zip(found, stored, strict=True)])
    return replace(_fitted(sizes, found), later_epochs=later)


def cached_training_flops(job: TrainingJob, key: str) -> TrainingFlops:
    """Return the job's FLOPs, counted once for each key and lengths of the counted rows.

    The key is a hash of everything else that they depend on. Ranks count together. None may find a
    result that another run stored after one of them looked.
    """
    if ranks.count() > 1:
        return count_training_flops(job)
    lengths = job.data.train.lengths
    whole = [key, *(int(lengths[place]) for place in _places_of_lengths(lengths))]
    stored = cached_value("flops", whole, lambda: asdict(count_training_flops(job)), MAX_COUNTED)
    return adapter(TrainingFlops).validate_python(stored)


def _device(job: TrainingJob) -> torch.device:
    return next(job.model.parameters()).device


def _step(job: TrainingJob, loss: Callable[..., LossSum], batch: dict[str, Any]) -> None:
    """Run a forward and a backward pass. Gradients are added to the model's."""
    with autocast(_device(job), job.recipe.budget.precision):
        mean, penalty = loss(job.model, batch).mean, job.method.penalty(job.model)
    torch.autograd.backward(mean if penalty is None else mean + penalty)


def _flops(compute: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False, custom_mapping=flop_formulas())
    with counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return int(counter.get_total_flops())


def _places_of_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return rows of up to three lengths: the shortest, a middle one and a long one."""
    place = {length: number for number, length in enumerate(lengths)}
    known = sorted(place)
    short = [length for length in known if length <= LONGEST]
    known = short if len(short) > 2 else known[:3]
    picked = dict.fromkeys((known[0], known[len(known) // 2], known[-1]))
    return tuple(place[length] for length in picked)


def _fitted(batches: Sequence[Sequence[int]], flops: Sequence[int]) -> TrainingFlops:
    """Fit the coefficients to the steps, exactly. `batches` are the lengths of their rows.

    With fewer than three lengths some coefficients stay undetermined. All that fit give the same
    FLOPs for rows of these lengths, and no row has another one.
    """
    terms = np.array(
        [(1, len(batch), sum(batch), sum(n * n for n in batch)) for batch in batches], dtype=float
    )
    scale = terms.max(axis=0)
    solution, *_ = np.linalg.lstsq(terms / scale, np.array(flops, dtype=float), rcond=None)
    per_step, per_row, per_token, per_square = map(float, solution / scale)
    return TrainingFlops(per_step, per_row, per_token, per_square)
