"""Cross-entropy of a projection to the vocabulary, of which only a few rows exist at a time.

The outputs of the projection would be the largest tensors of a training step. Here a chunk of them
is computed, then its losses and its gradients, and its memory is used again by the next chunk: the
gradients that the backward pass needs are those of the states and of the weight. (Liger's kernel
works so, arXiv:2410.10989, with smaller chunks, for which products are slow.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from peft_methods.models.projection import Projection
from peft_methods.tasks.collate import NO_LABEL

LARGEST_CHUNK = 2**27  # outputs of the projection: 512 MiB in 32 bits
MULTIPLE = 64  # a chunk's rows are a multiple of this, for which products are fast


class ChunkLosses(nn.Module):
    """The losses of a chunk and their gradients, as a module, since a module can be compiled."""

    def forward(
        self, logits: Tensor, targets: Tensor, scale: float, cap: float | None, gradients: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return losses (rows,) in 32 bits, and their gradients (rows, vocabulary).

        Targets of NO_LABEL have neither. The 32-bit copy of the outputs is the only large tensor.
        """
        scores = logits.float()
        if scale != 1:
            scores = scores * scale
        slope = None
        if cap is not None:
            bounded = (scores / cap).tanh()
            slope, scores = 1 - bounded.square(), bounded * cap
        is_known = targets != NO_LABEL
        wanted = targets.where(is_known, 0).unsqueeze(-1)
        total = scores.logsumexp(-1, keepdim=True)
        losses = (total - scores.gather(-1, wanted)).squeeze(-1).where(is_known, 0.0)
        if not gradients:
            return losses, None
        found = scores.sub_(total).exp_()
        is_wanted = torch.arange(logits.shape[-1], device=logits.device) == wanted
        found = found.add_(is_wanted, alpha=-1).mul_(is_known.unsqueeze(-1))
        if slope is not None:
            found = found.mul_(slope)
        return losses, (found if scale == 1 else found.mul_(scale)).to(logits.dtype)


CHUNK_LOSSES = ChunkLosses()  # no parameters; the cuda_graphs engine compiles it


def token_losses(states: Tensor, projection: Projection, targets: Tensor) -> Tensor:
    """Return the losses (tokens,) in nats of the states (tokens, width), without gradients.

    Targets are token ids, or NO_LABEL for a loss of 0.
    """
    with torch.no_grad():
        dtype = _product_dtype(states)
        weight, bias = _cast(projection, dtype)
        with torch.autocast(states.device.type, enabled=False):
            return torch.cat(
                [
                    CHUNK_LOSSES(
                        linear(states[chunk].to(dtype), weight, bias),
                        targets[chunk],
                        projection.scale,
                        projection.cap,
                        False,
                    )[0]
                    for chunk in _chunks(len(targets), len(weight))
                ]
                or [states.new_zeros(0, dtype=torch.float32)]
            )


def summed_loss(states: Tensor, projection: Projection, targets: Tensor) -> Tensor:
    """Return the sum of `token_losses`, with gradients of the states and of what is trained."""
    total: Tensor = _SummedLoss.apply(  # type: ignore[no-untyped-call]
        states, projection.weight, projection.bias, targets, projection
    )
    return total


class _SummedLoss(torch.autograd.Function):
    """The summed loss, whose gradients are computed in the forward pass.

    Gradients of weights are summed over chunks in 32 bits.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        projection: Projection,
    ) -> Tensor:
        dtype = _product_dtype(states)
        own, own_bias = _cast(projection, dtype)
        of_states, of_weight, of_bias, *_ = ctx.needs_input_grad
        total = torch.zeros((), device=states.device)
        inputs = torch.empty_like(states, dtype=dtype) if of_states else None
        weights = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
        biases = torch.zeros_like(own[:, 0], dtype=torch.float32) if of_bias else None
        with torch.autocast(states.device.type, enabled=False):
            for chunk in _chunks(len(targets), len(own)):
                half = states[chunk].to(dtype)
                losses, gradient = CHUNK_LOSSES(
                    linear(half, own, own_bias),
                    targets[chunk],
                    projection.scale,
                    projection.cap,
                    of_states or of_weight or of_bias,
                )
                total += losses.sum()
                if inputs is not None:
                    torch.mm(gradient, own, out=inputs[chunk])
                if weights is not None:
                    weights += gradient.T @ half
                if biases is not None:
                    biases += gradient.sum(0, dtype=torch.float32)
        ctx.dtype = states.dtype
        ctx.save_for_backward(inputs, weights, biases)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weights, biases = ctx.saved_tensors
        return (
            None if inputs is None else inputs.to(ctx.dtype) * factor.to(ctx.dtype),
            None if weights is None else weights.mul_(factor),
            None if biases is None else biases.mul_(factor),
            None,
            None,
        )


def _product_dtype(states: Tensor) -> torch.dtype:
    """Return the dtype of products: that of autocast, where it is on."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _cast(projection: Projection, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    bias = projection.bias
    return projection.weight.to(dtype), None if bias is None else bias.to(dtype)


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Divide the rows into chunks of equal size, as few as LARGEST_CHUNK allows."""
    most = max(MULTIPLE, LARGEST_CHUNK // vocabulary // MULTIPLE * MULTIPLE)
    number = -(-rows // most)
    size = -(-rows // (MULTIPLE * max(1, number))) * MULTIPLE
    return (slice(start, min(start + size, rows)) for start in range(0, rows, max(1, size)))
