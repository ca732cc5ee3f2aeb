"""Random weights of large models are drawn by all threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from peft_methods.models.drawing import CHUNK, DrawInParallel, round_to_bfloat16

ROWS = 2 * CHUNK // 1024 + 3  # three chunks, the last of them small


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def normal(shape: tuple[int, ...]) -> Tensor:
    return nn.init.normal_(torch.empty(shape), mean=1.0, std=0.5)


def linear(shape: tuple[int, ...]) -> Tensor:
    return nn.Linear(shape[1], shape[0], bias=False).weight.detach()


def drawn(of: Callable[[tuple[int, ...]], Tensor], rows: int, threads: int = 2) -> Tensor:
    torch.set_num_threads(threads)
    torch.manual_seed(3)
    with DrawInParallel():
        return of((rows, 1024))


def test_large_tensors_have_the_distribution_they_were_asked_for() -> None:
    found = drawn(normal, ROWS)
    assert found.mean() == pytest.approx(1.0, abs=2e-3)
    assert found.std() == pytest.approx(0.5, abs=2e-3)
    assert len({float(chunk[0]) for chunk in found.view(-1).split(CHUNK)}) == 3
    uniform, bound = drawn(linear, ROWS), 1 / math.sqrt(1024)
    assert float(uniform.abs().max()) <= bound
    assert uniform.std() == pytest.approx(bound / math.sqrt(3), rel=2e-3)


@pytest.mark.parametrize("of", [normal, linear])
def test_the_numbers_follow_from_the_seed_alone(of: Callable[[tuple[int, ...]], Tensor]) -> None:
    assert torch.equal(drawn(of, ROWS, threads=1), drawn(of, ROWS, threads=2))


@pytest.mark.parametrize("of", [normal, linear])
def test_small_tensors_are_drawn_by_torch(of: Callable[[tuple[int, ...]], Tensor]) -> None:
    torch.manual_seed(3)
    expected = of((8, 1024))
    assert torch.equal(drawn(of, 8), expected)


def test_a_generator_of_the_caller_is_used() -> None:
    def own() -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return nn.init.normal_(torch.empty(ROWS, 1024), generator=generator)

    expected = own()
    with DrawInParallel():
        assert torch.equal(own(), expected)


def test_weights_are_rounded_to_bfloat16_wherever_they_lie() -> None:
    model = nn.Linear(1024, ROWS)
    model.transposed = nn.Parameter(torch.randn(64, 3).T)
    model.scalar = nn.Parameter(torch.tensor(0.1))
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    round_to_bfloat16(model)
    for name, one in model.named_parameters():
        assert torch.equal(one, before[name].bfloat16().float())
        assert not torch.equal(one, before[name])
