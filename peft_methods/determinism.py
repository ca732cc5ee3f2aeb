"""The same cell, the same figures: what torch must be told, and what a cell says where torch cannot."""

from __future__ import annotations

import os

import torch

from peft_methods.errors import Nondeterministic

CUBLAS_WORKSPACE = ":4096:8"  # buffers of a fixed size and number: else concurrent streams may pick other algorithms
REFUSAL = (
    " does not have a deterministic implementation"  # torch's words, after the operation's name
)


def be_deterministic(*, on: bool) -> None:
    """Have torch take deterministic algorithms alone, or raise. On a GPU this comes before the first matrix product.

    Memory that is not yet written stays unfilled: nothing here reads it, and filling would cost time in every step.
    """
    if on:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
        torch.backends.cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property
    torch.use_deterministic_algorithms(on)


def refusal(error: RuntimeError) -> Nondeterministic | None:
    """For torch's refusal one that names the operation and the ways out; None for any other error."""
    operation, refused, _ = str(error).partition(REFUSAL)
    if not refused:
        return None
    return Nondeterministic(
        f"{operation.split()[-1]} has no deterministic implementation here: leave out --peft-deterministic (deterministic=True), "
        f"or the method that needs it."
    )
