"""Sizes that follow from the values of ids and masks, on tensors without data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from peft_methods.estimation.memory.fake_model import fake_mode
from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.estimation.memory.values import MOST

IDS = torch.tensor([[5, 3, 1], [4, 1, 3]])
WRITTEN = IDS.clone()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    mode = fake_mode()
    recorder = Recorder(mode)
    with mode, recorder:
        yield recorder


def known(recorder: Recorder, values: torch.Tensor) -> torch.Tensor:
    """A tensor without data whose values the recorder knows."""
    made = torch.empty(values.shape, dtype=values.dtype)
    recorder.values.learn(made, values)
    return made


def test_a_mask_of_known_ids_chooses_as_many_as_it_has_true_values(recorder: Recorder) -> None:
    hidden = torch.empty(2, 3, 8, requires_grad=True)
    ends = known(recorder, IDS).eq(3)
    assert hidden[ends].shape == (2, 8)
    hidden[ends].sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == hidden.shape
    assert torch.unique_consecutive(ends.sum(1)).numel() == 1
    assert ends.nonzero().shape == (2, 2)
    assert torch.masked_select(hidden[..., 0], ends).shape == (2,)


def test_a_mask_of_unknown_values_chooses_all(recorder: Recorder) -> None:
    hidden = torch.empty(2, 3, 8)
    assert hidden[torch.empty(2, 3, dtype=torch.bool)].shape == (6, 8)
    assert hidden[hidden[..., 0] > 0].shape == (6, 8)
    for one in (torch.empty(3, dtype=torch.int64), torch.randint(5, (3,))):
        assert recorder.values.of(one) is None
    assert recorder.values.of(torch.arange(3)) is not None


def test_values_that_are_written_over_are_forgotten(recorder: Recorder) -> None:
    ids = known(recorder, WRITTEN)
    row = ids[0]
    assert recorder.values.of(row) is not None
    ids[:, 0] = 7  # by a known value
    found = recorder.values.of(ids)
    assert found is not None
    with _disable_current_modes():
        assert found.tolist() == [[7, 3, 1], [7, 1, 3]]
    ids.copy_(torch.empty(2, 3))  # by an unknown one
    assert recorder.values.of(ids) is None
    assert recorder.values.of(row) is None


def test_large_tensors_are_not_followed(recorder: Recorder) -> None:
    ids = known(recorder, torch.ones(1, MOST // 2, dtype=torch.int64))
    assert recorder.values.of(ids + 1) is not None
    assert recorder.values.of(ids.expand(3, -1) + 1) is None


def test_gradient_of_a_sparse_update_has_its_places(recorder: Recorder) -> None:
    values = torch.empty(2, requires_grad=True)
    places = torch.tensor([[0, 1], [2, 0]])
    weight = torch.empty(4, 3).clone()
    weight += torch.sparse_coo_tensor(places, values, (4, 3), check_invariants=False)
    weight.sum().backward()
    assert values.grad is not None
    assert values.grad.shape == (2,)
