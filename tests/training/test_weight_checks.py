"""Weight checks: changed frozen weights and unmoved trained weights, to one element and one bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peft_methods.methods.registry import METHODS
from peft_methods.models.architecture import Architecture
from peft_methods.training import weight_checks
from peft_methods.training.evidence import Evidence

DECAY, SLOW_DECAY = 0.99, 0.999
METHOD = METHODS.create("full", {"learning_rate": 1e-3}, "a test")
ARCHITECTURE = Architecture(
    "bert",
    None,
    layers=1,
    distinct_layers=1,
    hidden=4,
    pooler=False,
    head_parameters=0,
    labels=2,
)


class Small(nn.Module):
    """A model with a frozen weight and a trained weight that spans more than one chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.randn(3, 5), requires_grad=False)
        self.trained = nn.Parameter(torch.randn(weight_checks.CHUNK // 4 + 1, 4))
        self.key = nn.Linear(2, 2)


def evidence_after(folder: Path, change: Callable[[Small], Any]) -> Evidence:
    model = Small()
    before = weight_checks.snapshot(model, folder)
    with torch.no_grad():
        model.key.weight.add_(1)
        change(model)
    return weight_checks.weight_evidence(
        model, before, decay=[DECAY], architecture=ARCHITECTURE, head=(), method=METHOD
    )


def test_weight_check_detects_one_flipped_bit_of_a_frozen_weight(tmp_path: Path) -> None:
    def flip(model: Small) -> None:
        model.trained.add_(1)
        model.frozen.view(torch.int32)[2, 4] ^= 1

    assert evidence_after(tmp_path, flip).frozen_changed == ("frozen",)
    assert evidence_after(tmp_path, lambda model: model.trained.add_(1)).frozen_changed == ()


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda trained: None, False),
        (lambda trained: trained.mul_(DECAY), False),  # moved by decay, not by training
        (lambda trained: trained.mul_(1 - (1 - DECAY) / 2), False),
        (lambda trained: trained.mul_(1 - (1 - DECAY) * 2), True),
        (lambda trained: trained[-1, -1].add_(0.1), True),  # only the last element
        (lambda trained: trained[0, 0].fill_(float("nan")), True),
    ],
)
def test_weight_check_does_not_count_decay_as_movement(
    tmp_path: Path, change: Callable[[torch.Tensor], Any], moved: bool
) -> None:
    evidence = evidence_after(tmp_path, lambda model: change(model.trained))
    assert evidence.unmoved == (() if moved else ("trained",))
    # The bias of the key has no gradient, so it is not checked.
    assert (evidence.frozen_checked, evidence.moved_checked) == (1, 2)


@pytest.mark.parametrize(
    ("end", "moved"),
    [
        (15.0, False),
        (15.0 * DECAY, False),
        (15.0 * SLOW_DECAY, False),  # in a group of a lower rate
        (15.0 * (1 + DECAY) / 2, True),  # less than decay alone, so training held against it
        (15.01, True),
        (float("nan"), True),
    ],
)
def test_a_single_number_has_moved_unless_it_is_at_an_end_of_its_decay(
    end: float, moved: bool
) -> None:
    now = nn.Parameter(torch.full((1,), end), requires_grad=False)
    assert weight_checks._moved(torch.full((1,), 15.0), now, [DECAY, SLOW_DECAY]) is moved


@given(index=st.integers(0, weight_checks.CHUNK + 3), by=st.floats(0.001, 10))
def test_weight_check_detects_one_moved_element_at_any_position(index: int, by: float) -> None:
    start = torch.ones(weight_checks.CHUNK + 4)
    end = nn.Parameter(start.clone(), requires_grad=False)
    assert not weight_checks._moved(start, end, [1.0])
    end[index] += by
    assert weight_checks._moved(start, end, [1.0])
