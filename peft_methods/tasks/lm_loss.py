"""The loss of a language model: cross-entropy of the learnt tokens, and of no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from peft_methods.data.token_rows import TokenRow
from peft_methods.models.ranks import unwrapped
from peft_methods.tasks.collate import EXAMPLES, NO_LABEL, Collator, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class LanguageCollator(Collator):
    """Collate rows with a label for each token. Padding has no label, whatever its id is."""

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


def predicted_tokens(labels: Tensor) -> int:
    """Return the number of labels of tokens that a token before them predicts."""
    return int((labels[:, 1:] != NO_LABEL).sum())


def token_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the losses (tokens) of the learnt tokens in nats, and the row of each.

    Position t predicts the label of t + 1. Hidden states of other positions never reach the
    projection to the vocabulary: its outputs would be the largest tensors of a step.
    """
    targets = batch["labels"][:, 1:]
    is_learnt = (targets != NO_LABEL).flatten()
    count = batch.get(EXAMPLES)
    count = int(is_learnt.sum()) if count is None else count
    # The learnt places first, in their order: unlike `nonzero`, the host need not wait for it.
    places = (~is_learnt).to(torch.int8).argsort(stable=True)[:count]
    inputs = model_inputs(batch)
    with _projecting_only(model, places) as is_reduced:
        logits = model(**inputs, use_cache=False).logits
    if not is_reduced:
        logits = _chosen(logits, places)
    found = targets.flatten()[places]
    losses = cross_entropy(logits.float(), found, reduction="none", ignore_index=NO_LABEL)
    return losses, places // targets.shape[1]


def _chosen(states: Tensor, places: Tensor) -> Tensor:
    """Return the states (places, width) of all positions but the last (rows, length, width)."""
    return states[:, :-1].flatten(0, 1)[places]


@contextmanager
def _projecting_only(model: Any, places: Tensor) -> Iterator[list[bool]]:
    """Context manager: give the projection to the vocabulary the states of these places only.

    The list that it yields is filled when that happened.
    """
    inner: Any = unwrapped(model)
    head, done = inner.get_output_embeddings(), []

    def choose(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        done.append(True)
        return (_chosen(given[0], places), *given[1:])

    hook = None if head is None else head.register_forward_pre_hook(choose)
    try:
        yield done
    finally:
        if hook is not None:
            hook.remove()
