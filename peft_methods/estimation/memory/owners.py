"""To which part of the memory a block belongs: weights, gradients or optimizer state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.profiling.peak_memory import Owners


def weights_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters, buffers, and what belongs to quantised weights."""
    for parameter in model.parameters():
        yield parameter
        state: Any = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (v for v in vars(state).values() if isinstance(v, torch.Tensor))
            state = state.state2
    for module in model.modules():
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if isinstance(scales, torch.Tensor):
            yield scales
    yield from model.buffers()


def owners_of(
    recorder: Recorder,
    weights: Sequence[int],
    trained: Sequence[nn.Parameter],
    optimizer: Any,
    done: int,
) -> Owners:
    """Return the addresses of weights, optimizer state and gradients."""
    state = (
        one
        for values in optimizer.state.values()
        for one in values.values()
        if isinstance(one, torch.Tensor)
    )
    made = {event.address: n for n, event in enumerate(recorder.recording.events) if event.size}
    gradients = [a for p in trained if p.grad is not None and (a := recorder.address_of(p.grad))]
    return Owners(
        weights=frozenset(weights),
        optimizer_state=frozenset(a for v in state if (a := recorder.address_of(v)) is not None),
        workspace=frozenset(),
        last_gradient={address: made[address] for address in gradients},
        backward_done=done,
    )
