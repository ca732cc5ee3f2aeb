"""Deterministic training: torch's settings and the error for nondeterministic operations."""

from __future__ import annotations

import os

import torch

from peft_methods.utils.errors import Nondeterministic

# Fixed size and number of buffers: otherwise concurrent streams may pick different algorithms.
CUBLAS_WORKSPACE = ":4096:8"
# Part of torch's error message, after the operation's name.
REFUSAL = " does not have a deterministic implementation"


def set_deterministic(*, on: bool) -> None:
    """Make torch use deterministic algorithms only, or raise an error for operations without one.

    On a GPU, call this before the first matrix product. Uninitialized memory is not filled, since
    nothing here reads it and filling it would cost time in every step.
    """
    if on:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
        torch.backends.cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(on)


def refusal(error: RuntimeError) -> Nondeterministic | None:
    """Convert torch's error for a nondeterministic operation to one with advice.

    Returns None for any other error.
    """
    operation, refused, _ = str(error).partition(REFUSAL)
    if not refused:
        return None
    return Nondeterministic(
        f"{operation.split()[-1]} has no deterministic implementation here: "
        f"set deterministic = false, or leave out the method that needs it.",
        setting="deterministic",
    )
