"""What bitsandbytes lacks on a machine for the methods that use it."""

from __future__ import annotations

import importlib.util


def library_problem(title: str, device: str) -> str | None:
    """Return why bitsandbytes cannot serve the method of this title here, or None if it can."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return f"{title} needs bitsandbytes: pip install bitsandbytes"
    if device.startswith("cuda") and _lacks_cuda_kernels():
        return (
            "bitsandbytes came without a CUDA library for this torch: "
            "`python -m bitsandbytes` says which one it looks for"
        )
    return None


def _lacks_cuda_kernels() -> bool:
    """Whether the GPUs of this machine lack them. Estimates are for a GPU elsewhere, too."""
    import torch
    from bitsandbytes.cextension import lib

    return torch.cuda.is_available() and not getattr(lib, "compiled_with_cuda", False)
