"""Memory within kernels."""

from __future__ import annotations

import torch

from peft_methods.estimation.memory.kernels import workspace_bytes


def test_the_sum_of_exponentials_has_them_as_a_temporary() -> None:
    """Of 512 rows of Gemma 3's vocabulary in bf16 the H200 needed 128 MiB more than without it."""
    scores = torch.empty(512, 262_144, device="meta")
    sums = torch.empty(512, 1, device="meta")
    assert workspace_bytes("aten.logsumexp", [scores], [sums]) == [512 * 2**20]
