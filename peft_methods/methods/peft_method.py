"""What the methods that PEFT implements have in common: each is one of its configs."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_maps import check_roles

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

Targets = Annotated[tuple[str, ...], Field(min_length=1)]


def drawn_seed() -> int:
    """Draw a seed for PEFT's own random numbers, which thereby follow the seed of the run."""
    import torch

    return int(torch.randint(2**31 - 1, (1,)))


@dataclass(frozen=True, kw_only=True)
class PeftMethod(Method):
    """A method of PEFT. A subclass describes it with `info` and returns its config.

    `added_in` is the version of PEFT that brought it.
    """

    added_in: ClassVar[tuple[int, int]] = (0, 18)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; PEFT must be recent enough."""
        installed = metadata.version("peft")
        if tuple(map(int, installed.split(".")[:2])) < self.added_in:
            needed = ".".join(map(str, self.added_in))
            return (
                f"{self.title} needs peft {needed} or newer, not {installed}: "
                f"pip install --upgrade peft"
            )
        return super().unsupported(architecture, device)

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Return PEFT's config for the model, with the head in `modules_to_save`."""
        raise NotImplementedError

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Wrap the model as the config says."""
        from peft import get_peft_model

        with self.wrapping():
            return get_peft_model(model, self.config(model, context))

    def wrapping(self) -> AbstractContextManager[Any]:
        """Context manager around the calls of PEFT that wrap a model."""
        return nullcontext()

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Merge as PEFT does, then remove its wrappers.

        PEFT's own unloading fails on a head of several layers, such as RoBERTa's.
        """
        if not self.info.mergeable:
            return None
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        model.merge_adapter()  # type: ignore[operator]  # apply() made a PEFT model of it
        base: nn.Module = model.get_base_model()  # type: ignore[operator]
        for name, module in list(base.named_modules()):
            if isinstance(module, BaseTunerLayer):
                base.set_submodule(name, module.get_base_layer())
            elif isinstance(module, ModulesToSaveWrapper):
                base.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
        return base


@dataclass(frozen=True, kw_only=True)
class TargetedPeftMethod(PeftMethod):
    """A method of PEFT that changes linear layers: `targets` are their roles (see `ROLES`).

    `takes_transposed` says whether PEFT implements it for GPT-2's layers, which store their weights
    transposed.
    """

    takes_transposed: ClassVar[bool] = True

    targets: Targets = ("query", "value")

    def __post_init__(self) -> None:
        check_roles(self.targets, f"[methods.{self.name}]")

    def needed_roles(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets

    def common(self, context: ApplyContext) -> dict[str, Any]:
        """Return the arguments that the configs of all these methods have."""
        return {
            "task_type": context.task_type,
            "target_modules": context.architecture.pattern(self.targets),
            "modules_to_save": list(context.head),
        }

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method of PEFT; GPT-2's transposed layers are refused where PEFT does."""
        counted = architecture.counted
        if not self.takes_transposed and counted is not None and counted.is_transposed:
            return (
                f"{self.title} needs linear layers of torch, and those of "
                f"{architecture.model_type!r} store their weights transposed"
            )
        return super().unsupported(architecture, device)

    def too_large(self, setting: str, value: int, architecture: Architecture) -> str | None:
        """Return why a setting exceeds the shorter side of the smallest target, or None."""
        limit = min(map(min, architecture.linear_sizes(self.targets)), default=value)
        if value <= limit:
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value}, but the smallest of its "
            f"targets in {architecture.model_type!r} has only {limit} rows or columns: set it to "
            f"{limit} or less"
        )

    def does_not_divide(self, setting: str, value: int, architecture: Architecture) -> str | None:
        """Return why a setting does not divide the sides of every target, or None if it does."""
        sides = {side for sizes in architecture.linear_sizes(self.targets) for side in sizes}
        rest = sorted(side for side in sides if side % value)
        if not rest:
            return None
        able = math.gcd(*sides)
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} does not divide the sizes of "
            f"its targets in {architecture.model_type!r} ({', '.join(map(str, rest))}): set it to "
            f"{able} or a divisor of {able}"
        )
