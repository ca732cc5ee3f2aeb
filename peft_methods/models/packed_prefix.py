"""The places of packed sequences, each of which has the same virtual tokens before its own.

Shapes depend on the number of tokens, of sequences and of virtual tokens alone, and nothing is read
on the host. Each token has a place of its own: the backward pass reads gradients from there, and
adds those of the virtual tokens in a fixed order.
"""

from __future__ import annotations

import torch


def borders_with(borders: torch.Tensor, count: int) -> torch.Tensor:
    """Return the borders of sequences (sequences + 1,) that have `count` more tokens each."""
    numbers = torch.arange(borders.shape[0], device=borders.device, dtype=borders.dtype)
    return borders + count * numbers


def token_places(borders: torch.Tensor, tokens: int, count: int) -> torch.Tensor:
    """Return the place of each token behind `count` others in each sequence, int64 (tokens,).

    The last border is `tokens`.
    """
    token = torch.arange(tokens, device=borders.device, dtype=borders.dtype)
    # Not in a slice of the borders: torch 2.11's compiled search on a GPU forgets where it begins.
    begun = torch.searchsorted(borders, token, right=True)  # sequences, up to that of the token
    return token + count * begun


def all_places(borders: torch.Tensor, tokens: int, count: int) -> torch.Tensor:
    """Return the places of the virtual tokens of each sequence, and then those of all tokens.

    They are int64 (sequences * count + tokens,), each place once.
    """
    starts = borders_with(borders, count)[:-1]
    virtual = starts[:, None] + torch.arange(count, device=borders.device)
    return torch.cat((virtual.flatten(), token_places(borders, tokens, count)))


def with_prefix(own: torch.Tensor, prefix: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Place the vectors of tokens (tokens, ...) behind a prefix (count, ...) in each sequence.

    `places` is what `all_places` returns.
    """
    sequences = (places.shape[0] - own.shape[0]) // prefix.shape[0]
    repeated = prefix.repeat(sequences, *[1] * (prefix.ndim - 1))
    given = torch.cat((repeated.to(own.dtype), own))
    return torch.empty_like(given).index_copy(0, places, given)
