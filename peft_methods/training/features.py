"""Features that a frozen model computes once for each row, for methods that train a head on them.

In the first epoch each batch passes through the whole model, in evaluation mode and without
gradients, and the last states of its tokens are stored. From then on a training step begins after
the last layer: the model's layers return what is stored. Most heads read one token of a row, so
only its state is stored; of others, such as those of tokens, all states are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peft_methods.data.token_rows import TokenRow, TokenRows
from peft_methods.models.families import family_of
from peft_methods.models.projection import forward_replaced, transformers_model
from peft_methods.tasks.base import Batch, LossSum
from peft_methods.tasks.collate import Collator, model_inputs
from peft_methods.training.collate import make_collator, on_device
from peft_methods.training.engine import TrainingJob
from peft_methods.training.precision import HALF, autocast
from peft_methods.utils.errors import ModelError, OptionError
from peft_methods.utils.units import format_bytes

ROWS = "row_numbers"  # the entry of a batch with its rows' numbers, known to the host
MOST_BYTES = 8 * 2**30  # of all features of a run, in 32 bits
# How far a head's outputs for stored states may be from the model's own, as a share of the largest,
# in full and in half precision. For another token's state the difference is much larger.
ROUNDING = (5e-3, 3e-2)
# The token whose state a classifier reads, by family: the first, the last, or all of them.
FIRST, LAST, ALL = "first", "last", "all"
PLACES = {"encoder": (FIRST, ALL), "decoder": (LAST, ALL), "encoder_decoder": (ALL,)}


class NumberedRows(TokenRows):
    """Rows with their number."""

    def __getitem__(self, row: int) -> TokenRow:
        return {**super().__getitem__(row), ROWS: row % len(self)}


class NumberingCollator:
    """Collates padded batches that also have the numbers of their rows, if the rows have any."""

    packs = False

    def __init__(self, collate: Collator) -> None:
        self._collate = collate

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return the batch of these rows."""
        numbers = [row[ROWS] for row in rows if ROWS in row]
        return self._collate(rows) | ({ROWS: numbers} if numbers else {})


class StoredFeatures:
    """The features of a training's rows, on the device of its model, and the loss of their batches.

    Features of a batch without row numbers, as that of the warm-up, are not kept; the memory for
    those of all rows is allocated nevertheless, so that it is in the peak that is measured. Without
    `allocates` it is not, and batches must not have row numbers.
    """

    def __init__(self, job: TrainingJob, *, allocates: bool = True) -> None:
        self._job, self._precision, self._allocates = job, job.recipe.budget.precision, allocates
        self.rows = NumberedRows(job.data.train.tokens, job.data.train.labels)
        self.collate = NumberingCollator(make_collator(job.recipe, job.tokenizer))
        self._lengths = np.asarray(self.rows.lengths, dtype=np.int64)
        self._known = np.zeros(len(self.rows), dtype=bool)
        self._place = ""
        self._store: Tensor | None = None  # (1 + states, width); the first is for padding
        base = transformers_model(job.model)
        body = getattr(base, base.base_model_prefix)
        # A pooler within the body comes after its layers.
        has_pooler = getattr(body, "pooler", None) is not None
        self._layers = getattr(body, "encoder", body) if has_pooler else body
        self._family = family_of(base.config)
        self._returned: type[Any] = tuple

    def is_stored(self, batch: Batch) -> bool:
        """Whether the features of all rows of a batch are stored."""
        return ROWS in batch and bool(self._known[batch[ROWS]].all())

    def processed_tokens(self, batch: Batch) -> int:
        """Return the number of tokens in a batch; padding is none if no layer computes with it."""
        if self.is_stored(batch):
            return int(self._lengths[batch[ROWS]].sum())
        return int(batch["input_ids"].numel())

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Return the task's loss of a batch, whose features are read or computed and stored.

        Raises `ModelError` for a model whose head reads more than the states of the last layer.
        """
        inputs = {name: value for name, value in batch.items() if name != ROWS}
        if self.is_stored(batch):
            states = self._read(batch)
        else:
            states = self.encode(model, inputs)
            if ROWS not in batch:
                self._store = None  # a traced step has to allocate it, as its activations
            if self._store is None and self._allocates:
                total = 1 + int(self._counts.sum())
                self._store = torch.zeros(total, states.shape[-1], device=states.device)
            if ROWS in batch:
                self._write(batch, states)
        with self._beginning_with(states):
            return self._job.task.loss(model, self._cut(inputs, self._place))

    def encode(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the states that the head reads: (rows, 1 or tokens, width), 0 for padding.

        The first batch decides which ones these are, so it should have several tokens a row, and
        padding.
        """
        with self._computing(model, inputs["input_ids"].device):
            self._place = self._place or self._chosen_place(model, inputs)
            states = self._states(model, inputs)
            self._check_size(states.shape[-1])
            return _at(self._place, states, inputs["attention_mask"])

    @contextmanager
    def _computing(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """Context manager: the model in evaluation mode, without gradients, as steps compute."""
        was_training = model.training
        model.eval()
        try:
            # The casts of weights without gradients must not be kept for the step.
            with torch.no_grad(), autocast(device, self._precision, cached=False):
                yield
        finally:
            model.train(was_training)

    def _states(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return the states of all tokens after the last layer."""
        found: list[Any] = []
        hook = self._layers.register_forward_hook(lambda *given: found.append(given[-1]))
        try:
            model(**model_inputs(inputs))
        finally:
            hook.remove()
        self._returned = type(found[0])
        states: Tensor = found[0][0]
        return states

    def _chosen_place(self, model: nn.Module, inputs: Batch) -> str:
        """Return the tokens whose states give the model's own outputs for the batch."""
        mask, allowed = inputs["attention_mask"], ROUNDING[self._precision in HALF]

        def predict(batch: Batch) -> Tensor:
            outputs = self._job.task.predict(model, batch)
            return outputs[mask.bool()] if outputs.ndim == 3 else outputs  # those of real tokens

        own, states = predict(inputs), self._states(model, inputs)
        if not (own.any() and own.isfinite().all()):
            return ALL  # such outputs cannot tell the places apart
        by_tokens = self._job.task.collator(self._job.tokenizer).labels_tokens
        for place in (ALL,) if by_tokens else PLACES[self._family]:
            with self._beginning_with(_at(place, states, mask)):
                outputs = predict(self._cut(inputs, place))
            if _agree(outputs, own, allowed):
                return place
        raise ModelError(
            f"{self._job.method.title} stores the states of the last layer, and the head of "
            f"{type(model).__name__} does not read these alone: use the method head_only"
        )

    @contextmanager
    def _beginning_with(self, states: Tensor) -> Iterator[None]:
        """Context manager: the layers return these states."""
        returned: Callable[..., Any] = self._returned
        output = (states,) if returned is tuple else returned(last_hidden_state=states)
        with forward_replaced(self._layers, lambda *_, **__: output):
            yield

    @staticmethod
    def _cut(inputs: Batch, place: str) -> Batch:
        """Return a batch that is as long as its states: one token stands for a row of one state."""
        if place == ALL:
            return inputs
        return {**inputs, **{name: ids[:, :1] for name, ids in model_inputs(inputs).items()}}

    def _read(self, batch: Batch) -> Tensor:
        assert self._store is not None, "all rows of the batch are stored"
        return self._store[self._places(batch)]

    def _write(self, batch: Batch, states: Tensor) -> None:
        assert self._store is not None, "a training allocates the memory of its features"
        self._store.index_copy_(0, self._places(batch).flatten(), states.flatten(0, 1).float())
        self._store[0] = 0
        self._known[batch[ROWS]] = True

    def _places(self, batch: Batch) -> Tensor:
        """Return where the states of the batch's rows are stored, 0 for padding: (rows, tokens)."""
        ids, numbers = batch["input_ids"], batch[ROWS]
        steps = np.arange(ids.shape[1] if self._place == ALL else 1)
        ends = 1 + np.cumsum(self._counts)[numbers, None]
        stored = ends - self._counts[numbers, None] + steps
        found = torch.from_numpy(np.where(stored < ends, stored, 0))
        places: Tensor = on_device({"places": found}, ids.device)["places"]
        return places

    @property
    def _counts(self) -> NDArray[np.int64]:
        """The number of stored states of each row."""
        return self._lengths if self._place == ALL else np.ones_like(self._lengths)

    def _check_size(self, width: int) -> None:
        """Raise `OptionError` if the states of all rows would take too much memory.

        It says how many of the longest rows fit: as many of any rows do.
        """
        ends = np.cumsum(np.sort(self._counts)[::-1])
        total, most = int(ends[-1]), MOST_BYTES // (4 * width)
        if total <= most:
            return
        fit = int(np.searchsorted(ends, most, "right"))
        fewer = f"set data.train = {fit} or less, or " if fit else ""
        raise OptionError(
            f"{self._job.method.title} would store {total:,} states of {width:,} numbers "
            f"({format_bytes(4 * width * total)}), and stores at most "
            f"{format_bytes(MOST_BYTES)}: {fewer}use the method head_only",
            setting="data.train" if fit else "",
        )


def _at(place: str, states: Tensor, mask: Tensor) -> Tensor:
    """Return the states of each row's first or last token, or of all, with 0 for padding."""
    if place == ALL:
        return states.masked_fill(~mask.bool().unsqueeze(-1), 0)
    if place == FIRST:
        return states[:, :1].clone()  # a view would keep the states of all tokens
    rows = torch.arange(len(states), device=states.device)
    return states[rows, mask.sum(-1) - 1].unsqueeze(1)


def _agree(outputs: Tensor, own: Tensor, allowed: float) -> bool:
    """Whether outputs are the same but for rounding."""
    return outputs.shape == own.shape and bool(
        (outputs - own).abs().max() <= allowed * own.abs().max()
    )
