"""The optimizer of a run: AdamW as it is, or the kind that the method declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from peft_methods.methods.base import Method, ParamGroup

KEPT = ("lr", "betas", "eps", "weight_decay")  # settings that every kind of AdamW takes


def optimizer_of(
    method: Method,
    model: nn.Module,
    plain: type[torch.optim.Optimizer],
    settings: Mapping[str, Any],
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the class of the method's optimizer and what it is made with, besides parameters.

    `plain` and `settings` are those of a method that declares no other optimizer.
    """
    if method.info.optimizer == "adamw":
        return plain, dict(settings)
    from peft_methods.training.eight_bit_adamw import AdamW8bit

    own = {name: value for name, value in settings.items() if name in KEPT}
    return AdamW8bit, {**own, "of": model}


def replay_problem_of(method: Method) -> str | None:
    """Return why steps of the method's optimizer cannot be recorded, or None if they can."""
    if method.info.optimizer == "adamw":
        return None
    return f"the optimizer of {method.title} takes rate and step number from the host"


def moved_codes(optimizer: torch.optim.Optimizer) -> None:
    """Replace the codes of a state in 8 bits, which follow from values, by tensors without data.

    The first step on a device moves them there. An estimate calls this among tensors without data.
    """
    codes: dict[str, torch.Tensor] = getattr(optimizer, "name2qmap", {})
    for name, code in codes.items():
        codes[name] = torch.empty(len(code))


def split_groups(optimizer: torch.optim.Optimizer, own: Sequence[ParamGroup]) -> None:
    """Split each of the optimizer's groups further by the method's own groups of parameters."""
    special = [(set(one.parameters), one.settings()) for one in own]
    for group in list(optimizer.param_groups):
        for members, settings in special:
            chosen = [one for one in group["params"] if one in members]
            group["params"] = [one for one in group["params"] if one not in members]
            optimizer.add_param_group({**group, "params": chosen, **settings})
