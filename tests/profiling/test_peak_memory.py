"""Peak-memory breakdown: blocks alive at the peak, their parts, and a real step on a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.profiling.peak_memory import (
    Block,
    Event,
    Owners,
    PeakTrace,
    blocks_at_peak,
    bytes_by_part,
)


def test_blocks_at_peak_are_alive_at_the_same_moment() -> None:
    events = [Event(10, 300), Event(10, 0), Event(20, 200), Event(30, 150), Event(20, 0)]
    alive = blocks_at_peak({1: 100}, events)
    assert {(b.address, b.size, b.allocated_at) for b in alive} == {
        (1, 100, -1),
        (20, 200, 2),
        (30, 150, 3),
    }


def test_blocks_at_peak_distinguishes_blocks_at_a_reused_address() -> None:
    alive = blocks_at_peak({}, [Event(10, 100), Event(10, 0), Event(10, 100), Event(20, 1)])
    assert alive == [Block(10, 100, 2), Block(20, 1, 3)]


steps = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40)


@given(st.dictionaries(st.integers(0, 5), st.integers(1, 9)), steps)
def test_blocks_at_peak_have_the_highest_total_of_all_moments(
    live: dict[int, int], moves: list[tuple[int, int]]
) -> None:
    events = [Event(address, size) for address, size in moves]
    held, highest = dict(live), sum(live.values())
    for event in events:
        held.pop(event.address, None)
        held |= {event.address: event.size} if event.size else {}
        highest = max(highest, sum(held.values()))
    assert sum(block.size for block in blocks_at_peak(live, events)) == highest


OWNERS = Owners(
    weights=frozenset({1}),
    optimizer_state=frozenset({2}),
    workspace=frozenset({3}),
    last_gradient={4: 7, 5: -1},
    backward_done=9,
)


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (Block(1, 8, -1), "weights"),
        (Block(2, 8, -1), "optimizer_state"),
        (Block(3, 8, -1), "workspace"),
        (Block(4, 8, 7), "gradients"),
        (Block(4, 8, 3), "activations"),  # the same address, before the gradient was allocated
        (Block(5, 8, -1), "gradients"),
        (Block(1, 8, 2), "activations"),
        (Block(6, 8, 8), "activations"),
        (Block(6, 8, 9), None),  # after the backward pass: no owner
        (Block(6, 8, -1), None),
    ],
)
def test_bytes_by_part_assigns_each_block_to_its_owner(block: Block, part: str | None) -> None:
    assert {name: size for name, size in bytes_by_part([block], OWNERS).items() if size} == (
        {part: 8} if part else {}
    )


def test_gradients_older_than_the_trace_count_as_gradients() -> None:
    """These are accumulated from earlier batches. New gradients are allocated and freed again."""
    events = [Event(6, 80), Event(7, 50), Event(7, 0), Event(6, 0), Event(8, 9)]
    owners = Owners(
        frozenset({1}), frozenset({2}), frozenset(), last_gradient={5: -1}, backward_done=4
    )
    parts = bytes_by_part(blocks_at_peak({1: 100, 2: 200, 5: 50}, events), owners)
    assert parts == {
        "weights": 100,
        "optimizer_state": 200,
        "gradients": 50,
        "activations": 130,
        "workspace": 0,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("accumulating", [False, True])
def test_peak_trace_breaks_down_a_real_step(accumulating: bool) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 2048)
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    weights = sum(p.numel() * 4 for p in model.parameters())

    def step(done: object = None) -> None:
        loss = model(torch.ones(4096, 2048, device="cuda")).sum()
        loss.backward()
        if isinstance(done, PeakTrace):
            done.backward_done()
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=not accumulating)
    torch.cuda.reset_peak_memory_stats()
    with PeakTrace(model, optimizer) as trace:
        step(trace)
    peak = torch.cuda.max_memory_allocated()
    assert trace.parts["weights"] == pytest.approx(weights, rel=0.01)
    assert trace.parts["optimizer_state"] == pytest.approx(2 * weights, rel=0.01)
    assert not accumulating or trace.parts["gradients"] == pytest.approx(weights, rel=0.01)
    assert trace.parts["activations"] >= 2 * 4096 * 2048 * 4
    assert abs(peak - sum(trace.parts.values())) <= 0.05 * peak
