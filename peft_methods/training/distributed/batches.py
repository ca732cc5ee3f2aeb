"""Shares of a batch: each rank collates the rows that are its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from peft_methods.data.token_rows import TokenRow
from peft_methods.models import ranks
from peft_methods.tasks.base import Task
from peft_methods.tasks.collate import EXAMPLES, Collator

WHOLE = "examples_of_all_ranks"  # entry of a batch, removed before the model reads it


class RankCollator:
    """Collate this rank's share of each batch, and count the examples of all shares.

    All ranks draw the same batches. Shares are contiguous and differ by one row at most. In an
    epoch's last batch a rank may have no row: then it has one without a label, which adds nothing
    to loss and gradient.
    """

    def __init__(self, task: Task, collate: Collator) -> None:
        self._task, self._collate = task, collate

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Return this rank's batch, with the number of examples in the whole batch."""
        collated = [
            self._collate(share) if share else unlabelled(self._collate, rows[:1])
            for share in shares(rows, ranks.count())
        ]
        examples = sum(map(self._task.examples_in_batch, collated))
        return collated[ranks.rank()] | {WHOLE: examples}


def shares(rows: Sequence[TokenRow], count: int) -> list[Sequence[TokenRow]]:
    """Divide rows into `count` contiguous shares; the first ones have a row more."""
    size, more = divmod(len(rows), count)
    ends = [size * number + min(number, more) for number in range(count + 1)]
    return [rows[start:end] for start, end in itertools.pairwise(ends)]


def unlabelled(
    collate: Callable[[Sequence[TokenRow]], dict[str, Any]], rows: Sequence[TokenRow]
) -> dict[str, Any]:
    """Return a batch of these rows without labels: it has no example."""
    batch = collate(rows)
    blank = collate.no_labels(1, 1).flatten()[0]  # type: ignore[attr-defined]
    labels = torch.full_like(batch["labels"], blank.item())
    counts = {EXAMPLES: 0} if EXAMPLES in batch else {}
    return batch | {"labels": labels, "rows": 0} | counts
