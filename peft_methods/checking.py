"""Before and after training: which frozen weights changed, and which trained ones never moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import nn

from peft_methods import models
from peft_methods.engines.base import save_trainable
from peft_methods.layouts import LAYOUTS, ModelShape
from peft_methods.records import Evidence

PIECE = 2**20  # elements compared at once


@dataclass(frozen=True)
class Before:
    """The state to compare with: fingerprints of frozen weights, and a file with the trainable ones."""

    frozen: dict[str, str]
    trainable: Path


def remember(model: nn.Module, workdir: Path) -> Before:
    """Take the state before the first step. Trainable weights go to disk, not to memory that is being measured."""
    frozen = {name: fingerprint(p) for name, p in model.named_parameters() if not p.requires_grad}
    path = workdir / "start.safetensors"
    save_trainable(model, path)
    return Before(frozen, path)


def fingerprint(parameter: nn.Parameter) -> str:
    """XXH3 of the parameter's values: 128 bits that tell of any accident, in a tenth of sha256's time."""
    return xxhash.xxh3_128_hexdigest(models.bytes_of(parameter))


def evidence_of(
    model: nn.Module,
    before: Before,
    *,
    decay: float,
    shape: ModelShape,
    head: tuple[str, ...],
    expected_trainable: int | None,
) -> Evidence:
    """What changed that should not have, and what did not that should have.

    `head` names its modules. `decay` is the product of (1 - rate * weight decay) over all steps: what is left of a weight that only decays.
    A parameter has moved when any element differs from its start times `decay` (or 1) by more than rounding, or is no number.
    """
    from safetensors import safe_open

    parameters = dict(model.named_parameters())
    changed = [
        name for name, known in before.frozen.items() if fingerprint(parameters[name]) != known
    ]
    with safe_open(before.trainable, framework="pt") as start:
        names = [name for name in start.keys() if not _has_no_gradient(name, shape)]  # noqa: SIM118  # not a dict
        unmoved = [
            name for name in names if not _moved(start.get_tensor(name), parameters[name], decay)
        ]
    quantized = [
        models.in_modules(name, head)
        for name, p in parameters.items()
        if models.is_4bit(p) and ".original_module." not in name
    ]
    return Evidence(
        expected_trainable=expected_trainable,
        frozen_changed=tuple(changed),
        unmoved=tuple(unmoved),
        frozen_checked=len(before.frozen),
        moved_checked=len(names),
        head_parameters=shape.head_parameters,
        quantized=len(quantized),
        head_quantized=sum(quantized),
    )


def _moved(start: torch.Tensor, end: nn.Parameter, decay: float) -> bool:
    """Piece by piece on the host, up to the first that has moved, which is nearly always the first of all."""
    rounding = 1e-5 * float(torch.linalg.vector_norm(start, torch.inf)) + 1e-12
    pieces = zip(
        torch.split(start.flatten(), PIECE), torch.split(end.detach().flatten(), PIECE), strict=True
    )
    return any(_has_moved(before, now.cpu(), decay, rounding) for before, now in pieces)


def _has_moved(before: torch.Tensor, now: torch.Tensor, decay: float, rounding: float) -> bool:
    decayed = before * decay
    low, high = torch.minimum(before, decayed) - rounding, torch.maximum(before, decayed) + rounding
    return not bool(((now >= low) & (now <= high)).all())


def _has_no_gradient(name: str, shape: ModelShape) -> bool:
    """A key's bias shifts all scores of a query alike, which softmax ignores: its gradient is rounding noise."""
    key = LAYOUTS[shape.layout].key if shape.layout else "key"
    return name.endswith((f"{key}.bias", f"{key}.base_layer.bias", ".adapter.key.bias"))
