"""The keys of packed sequences, each of which has the same prefix before its own.

Shapes depend on the number of tokens, of sequences and of the prefix alone, and nothing is read on
the host. Each key has a row of its own: the backward pass reads gradients from there, and adds
those of the prefix in a fixed order.
"""

from __future__ import annotations

import torch


def key_borders(borders: torch.Tensor, count: int) -> torch.Tensor:
    """Return the borders of sequences (sequences + 1,) that have `count` more tokens each."""
    numbers = torch.arange(borders.shape[0], device=borders.device, dtype=borders.dtype)
    return borders + count * numbers


def key_rows(borders: torch.Tensor, tokens: int, count: int) -> torch.Tensor:
    """Return the rows of the prefix in each sequence, and then those of all tokens.

    They are int64 (sequences * count + tokens,), each row once. The last border is `tokens`.
    """
    device = borders.device
    starts = key_borders(borders, count)[:-1]
    prefix = starts[:, None] + torch.arange(count, device=device)
    token = torch.arange(tokens, device=device, dtype=borders.dtype)
    sequence = torch.searchsorted(borders[1:], token, right=True)
    return torch.cat((prefix.flatten(), token + count * (sequence + 1)))


def with_prefix(own: torch.Tensor, prefix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Place keys (tokens, heads, size) behind a prefix (count, heads, size) in each sequence.

    `rows` is what `key_rows` returns.
    """
    sequences = (rows.shape[0] - own.shape[0]) // prefix.shape[0]
    given = torch.cat((prefix.repeat(sequences, 1, 1).to(own.dtype), own))
    return torch.empty_like(given).index_copy(0, rows, given)
