"""Closed-form FLOPs of training an encoder, and the device's measured rate of matrix products."""

from __future__ import annotations

from collections.abc import Iterable

from peft_methods.models.architecture import Architecture


def forward_flops(architecture: Architecture, lengths: Iterable[int]) -> tuple[int, int]:
    """Return the FLOPs (linear layers, attention products) of a forward pass over rows.

    `lengths` are the rows' tokens without padding. A product of (a, b) by (b, c) counts 2abc.
    Attention has two products per layer: queries by keys and attention weights by values, 4 s² h
    together. PEFT's modules, norms and embeddings are left out, as is usual (Kaplan et al. 2020,
    arXiv:2001.08361, appendix; PaLM, Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    """
    per_token = architecture.layers * sum(
        2 * inputs * outputs for inputs, outputs in architecture.dimensions.values()
    )
    tokens = squares = 0
    for length in lengths:
        tokens += length
        squares += length * length
    return tokens * per_token, architecture.layers * 4 * squares * architecture.hidden


def training_flops(architecture: Architecture, lengths: Iterable[int], passes: float) -> float:
    """Return the FLOPs of a training step over these rows.

    `passes` is the method's cost per step in forward passes of the linear layers. 1: no gradients
    flow into the encoder. 2: gradients of activations. 3: gradients of weights too. The attention
    products have no weights: their backward pass always costs two forward passes.
    """
    linear, attention = forward_flops(architecture, lengths)
    return linear * passes + attention * (3 if passes > 1 else 1)
