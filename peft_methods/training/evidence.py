"""Facts about the weights of a run, as its record keeps them. This file imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """Facts about a run's weights, for the validity rules. Fields with names list parameters.

    `expected_trainable` is the closed form for the method alone, None if there is none.
    `head_parameters` is the size of the head, trained or not. `quantized` counts the tensors stored
    in 4 or 8 bits, `head_quantized` those of them in the head.
    """

    expected_trainable: int | None = None
    frozen_changed: tuple[str, ...] = ()
    unmoved: tuple[str, ...] = ()
    frozen_checked: int = 0
    moved_checked: int = 0
    head_parameters: int | None = None
    quantized: int | None = None
    head_quantized: int = 0
