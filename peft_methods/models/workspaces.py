"""The workspaces of cuBLAS on a GPU."""

from __future__ import annotations

import torch


def free_cublas_workspaces() -> bool:
    """Free the cuBLAS workspaces: one block for each stream that computed a matrix product.

    Return False if this torch has no function for it: it is a private one (torch 2.11 to 2.13).
    """
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
    return clear is not None
