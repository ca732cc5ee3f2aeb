"""The pace of the machine."""

from __future__ import annotations

import torch

from peft_methods.profiling.pace import pace_seconds


def test_pace_is_a_short_time_and_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    assert 0 < pace_seconds("cpu") < 60
    assert torch.equal(before, torch.get_rng_state())
