"""The state of the slots on the device: their last tokens, positions, and what they have written.

Nothing here makes the host wait for the device, so a CUDA graph can capture it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SlotState:
    """Tensors with an entry for each slot.

    `tokens` were written last and `positions` are their places in the text. `counts` is the number
    of tokens written after the prompt, `limits` the most that there may be, `done` whether the text
    has ended. `written` (slots, tokens) has the tokens; its last column is for texts that are done.
    """

    tokens: Tensor
    positions: Tensor
    counts: Tensor
    limits: Tensor
    done: Tensor
    written: Tensor
    ends: Tensor  # the tokens that end a text

    @classmethod
    def empty(
        cls, slots: int, longest: int, ends: Sequence[int], device: torch.device
    ) -> SlotState:
        """Return slots without texts, for texts of at most `longest` new tokens."""
        tokens, positions, counts, limits = torch.zeros(
            4, slots, dtype=torch.long, device=device
        ).unbind()
        return cls(
            tokens,
            positions,
            counts,
            limits,
            torch.ones(slots, dtype=torch.bool, device=device),
            torch.zeros(slots, longest + 1, dtype=torch.long, device=device),
            torch.tensor(sorted(ends), dtype=torch.long, device=device),
        )

    def begin(self, first: int, lengths: Tensor, limits: Tensor, logits: Tensor) -> None:
        """Put texts into the slots from `first` on, each with its first new token.

        `logits` (texts, vocabulary) are those after the last tokens of the prompts.
        """
        slots = slice(first, first + len(lengths))
        self.positions[slots] = lengths - 1
        self.limits[slots] = limits
        self.counts[slots] = 0
        self.done[slots] = False
        self._write(slots, logits)

    def advance(self, rows: int, logits: Tensor) -> None:
        """Write the next tokens of the first slots: those with the highest `logits`."""
        self._write(slice(0, rows), logits)

    def _write(self, slots: slice, logits: Tensor) -> None:
        counts, done = self.counts[slots], self.done[slots]
        chosen = logits.argmax(-1)
        self.written[slots].scatter_(1, counts[:, None], chosen[:, None])
        self.tokens[slots] = chosen
        going_on = ~done
        counts += going_on
        self.positions[slots] += going_on
        done |= (chosen[:, None] == self.ends).any(-1) | (counts >= self.limits[slots])

    def move(self, slots: Sequence[int]) -> None:
        """Move these slots to the first ones. All others are then without texts."""
        index = torch.tensor(slots, dtype=torch.long, device=self.done.device)
        for tensor in (self.tokens, self.positions, self.counts, self.limits, self.written):
            tensor[: len(slots)] = tensor[index]
        self.done[:] = True
        self.done[: len(slots)] = False

    def progress(self, rows: int) -> tuple[list[bool], list[int]]:
        """Return of the first slots whether they are done and how much they have written.

        The host waits for the device, once.
        """
        done, counts = torch.stack([self.done[:rows].long(), self.counts[:rows]]).tolist()
        return [bool(one) for one in done], counts

    def texts(self, slots: Sequence[int], counts: Sequence[int]) -> list[list[int]]:
        """Return the tokens that these slots have written. The host waits for the device."""
        rows: list[list[int]] = self.written[list(slots)].tolist()
        return [row[:count] for row, count in zip(rows, counts, strict=True)]
