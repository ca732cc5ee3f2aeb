"""The loss of a language model: cross-entropy of the learnt tokens, and of no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from peft_methods.data.token_rows import TokenRow
from peft_methods.models.projection import Projection, forward_replaced, projection_of
from peft_methods.models.ranks import unwrapped
from peft_methods.tasks import linear_cross_entropy
from peft_methods.tasks.collate import EXAMPLES, NO_LABEL, PLACES, Collator, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class LanguageCollator(Collator):
    """Collate rows with a label for each token. Padding has no label, whatever its id is."""

    labels_tokens = True

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return tensors of shape (rows, longest or length), and the number of learnt tokens."""
        batch: dict[str, Any] = super().__call__(rows)
        return batch | {EXAMPLES: predicted_tokens(batch["labels"])}

    def labels(self, rows: Sequence[TokenRow], length: int) -> Tensor:
        """Return the labels (rows, length)."""
        return torch.from_numpy(self._padded([row["labels"] for row in rows], length, NO_LABEL))

    def no_labels(self, rows: int, length: int) -> Tensor:
        """Return the labels of a batch that adds nothing to the loss."""
        return torch.full((rows, length), NO_LABEL)

    def labelled(self, row: TokenRow, pooled: int) -> tuple[Any, Any]:
        """Return the places before learnt tokens, which predict them, and these tokens."""
        labels = np.asarray(row["labels"])[1:]
        places = np.flatnonzero(labels != NO_LABEL)
        return places, labels[places]


def predicted_tokens(labels: Tensor) -> int:
    """Return the number of labels of tokens that a token before them predicts."""
    return int((labels[:, 1:] != NO_LABEL).sum())


def summed_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Return the sum of the losses of the learnt tokens in nats."""
    places, targets, _ = _learnt(batch)
    states, projection = _states(model, batch, places)
    if projection is None:
        return cross_entropy(states.float(), targets, reduction="sum", ignore_index=NO_LABEL)
    return linear_cross_entropy.summed_loss(states, projection, targets)


def token_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the losses (tokens) of the learnt tokens in nats, without gradients.

    The second tensor has the row of each.
    """
    places, targets, rows = _learnt(batch)
    with torch.no_grad():
        states, projection = _states(model, batch, places)
        if projection is not None:
            return linear_cross_entropy.token_losses(states, projection, targets), rows
        found = cross_entropy(states.float(), targets, reduction="none", ignore_index=NO_LABEL)
    return found, rows


def _learnt(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places that are learnt, of all places of the batch, their targets and rows.

    Position t predicts the label of t + 1. The places of packed tokens are known; they may be
    filled up with places without a target.
    """
    if PLACES in batch:
        return batch[PLACES], batch["labels"], torch.zeros_like(batch[PLACES])
    targets = batch["labels"][:, 1:]
    is_learnt = (targets != NO_LABEL).flatten()
    count = batch.get(EXAMPLES)
    count = int(is_learnt.sum()) if count is None else count
    # The learnt places first, in their order: unlike `nonzero`, the host need not wait for it.
    places = (~is_learnt).to(torch.int8).argsort(stable=True)[:count]
    rows = places // max(1, targets.shape[1])
    return places + rows, targets.flatten()[places], rows


def _states(
    model: Any, batch: Mapping[str, Any], places: Tensor
) -> tuple[Tensor, Projection | None]:
    """Return the last hidden states (places, width), and the projection that they go through.

    Of a model whose projection is not known it is the logits (places, vocabulary), and None. The
    projection never has the states of other places: its outputs would be the largest tensors of a
    step.
    """
    inner: Any = unwrapped(model)
    head, projection, found = inner.get_output_embeddings(), projection_of(inner), []

    def keep(states: Tensor) -> Tensor:
        found.append(states.flatten(0, 1).index_select(0, places))
        return states[..., :1]  # nobody reads these outputs

    def choose(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found.append(given[0].flatten(0, 1).index_select(0, places))
        return (found[0], *given[1:])

    with forward_replaced(head, keep) if projection is not None else _inputs_chosen(head, choose):
        logits: Tensor = model(**model_inputs(batch), use_cache=False).logits
    if projection is not None:
        return found[0], projection
    return (logits if found else logits.flatten(0, 1).index_select(0, places)), None


@contextmanager
def _inputs_chosen(head: nn.Module | None, choose: Callable[..., Any]) -> Iterator[None]:
    """Context manager: the head has these inputs. A model may have none that it tells of."""
    hook = None if head is None else head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
