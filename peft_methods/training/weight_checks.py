"""Weight checks: frozen weights that training changed, and trained weights that never moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import nn

from peft_methods.methods.base import Method
from peft_methods.models import parameters, quantization, ranks
from peft_methods.models.architecture import Architecture
from peft_methods.models.host_threads import host_threads
from peft_methods.models.module_names import in_modules
from peft_methods.models.parameters import save_trainable
from peft_methods.training.evidence import Evidence
from peft_methods.training.idle_parameters import without_gradient

CHUNK = 2**20  # elements compared at once


@dataclass(frozen=True)
class StateBefore:
    """Weights before training: hashes of the frozen ones, and a file with the trainable ones."""

    frozen: dict[str, str]
    trainable: Path


def snapshot(model: nn.Module, workdir: Path) -> StateBefore:
    """Record the weights before the first step.

    Trainable weights are written to disk, since memory is being measured.
    """
    frozen = fingerprints({n: p for n, p in model.named_parameters() if not p.requires_grad})
    path = workdir / "start.safetensors"
    save_trainable(model, path)
    return StateBefore(frozen, path)


def fingerprints(weights: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Return the `fingerprint` of each. Several threads read those on the host.

    Side by side, copies from a GPU and values of quantised weights would need memory. Ranks gather
    the parts of a weight in one order.
    """
    are_plain = ranks.count() == 1 and all(
        one.device.type == "cpu" and not quantization.is_quantized(one) for one in weights.values()
    )
    with ThreadPoolExecutor(host_threads() if are_plain else 1) as pool:
        return dict(zip(weights, pool.map(fingerprint, weights.values()), strict=True))


def fingerprint(parameter: nn.Parameter) -> str:
    """Return the XXH3 hash of the parameter's values.

    Its 128 bits detect any accidental change, in a tenth of the time of SHA-256.
    """
    found = xxhash.xxh3_128()
    for chunk in parameters.chunks_of(parameter):
        found.update(chunk)
    return found.hexdigest()


def weight_evidence(
    model: nn.Module,
    before: StateBefore,
    *,
    decay: Sequence[float],
    architecture: Architecture,
    head: tuple[str, ...],
    method: Method,
) -> Evidence:
    """List the frozen weights that changed and the trained weights that did not move.

    `head` names the head's modules. `decay` has for each group of parameters the product of
    (1 - rate * weight decay) over all steps: the factor left of a weight that only decays. A
    parameter has moved if any element is NaN, or is outside the range from its start value to that
    value times the least factor by more than rounding. A parameter of one element has moved unless
    it is its start value, or that times one of the factors: a step may well leave it between.
    Parameters that the architecture itself leaves without gradient need not move.
    """
    from safetensors import safe_open

    parameters = dict(model.named_parameters())
    now = fingerprints({name: parameters[name] for name in before.frozen})
    changed = [name for name, digest in before.frozen.items() if now[name] != digest]
    with safe_open(before.trainable, framework="pt") as start:
        trained = start.keys()
        names = [name for name in trained if not _has_zero_gradient(name, architecture, method)]
        still = [
            name for name in names if not _moved(start.get_tensor(name), parameters[name], decay)
        ]
    idle = without_gradient(model, still) if still else frozenset()
    quantized = [
        in_modules(name, head)
        for name, p in parameters.items()
        if quantization.is_quantized(p) and ".original_module." not in name
    ]
    return Evidence(
        expected_trainable=method.expected_trainable(architecture),
        frozen_changed=tuple(changed),
        unmoved=tuple(name for name in still if name not in idle),
        frozen_checked=len(before.frozen),
        moved_checked=len(names) - len(idle),
        head_parameters=architecture.head_parameters,
        quantized=len(quantized),
        head_quantized=sum(quantized),
    )


def _moved(start: torch.Tensor, end: nn.Parameter, decay: Sequence[float]) -> bool:
    """Whether the parameter moved.

    Chunks are compared on the host until one has moved: nearly always the first.
    """
    rounding = 1e-5 * float(torch.linalg.vector_norm(start, torch.inf)) + 1e-12
    now = ranks.whole(end.detach()).flatten()
    if len(now) == 1:
        ends = start.flatten() * torch.tensor([1.0, *decay])
        return not bool(((now.cpu() - ends).abs() <= rounding).any())
    chunks = zip(torch.split(start.flatten(), CHUNK), torch.split(now, CHUNK), strict=True)
    least = min(decay, default=1.0)
    return any(_has_moved(before, now.cpu(), least, rounding) for before, now in chunks)


def _has_moved(before: torch.Tensor, now: torch.Tensor, decay: float, rounding: float) -> bool:
    decayed = before * decay
    low, high = torch.minimum(before, decayed) - rounding, torch.maximum(before, decayed) + rounding
    return not bool(((now >= low) & (now <= high)).all())


def _has_zero_gradient(name: str, architecture: Architecture, method: Method) -> bool:
    """Whether the gradient is only rounding noise, for attention or by the method's own account.

    A bias of keys shifts all scores of a query equally, which softmax ignores. One matrix for
    query, key and value has a bias that moves.
    """
    parts = architecture.module_map
    key = "key" if parts is None or parts.key == parts.value else parts.key
    is_key_bias = name.endswith((f"{key}.bias", f"{key}.base_layer.bias"))
    return is_key_bias or method.has_zero_gradient(name)
