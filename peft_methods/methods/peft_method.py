"""What the methods that PEFT implements have in common: each is one of its configs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_maps import check_roles
from peft_methods.models.module_names import has_transposed_weights

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

Targets = Annotated[tuple[str, ...], Field(min_length=1)]


def drawn_seed() -> int:
    """Draw a seed for PEFT's own random numbers, which thereby follow the seed of the run."""
    import torch

    return int(torch.randint(2**31 - 1, (1,)))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Context manager: ignore warnings of PEFT and torch that say nothing about the method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def with_sparse_tensors() -> Iterator[None]:
    """Context manager: torch has warned, unseen, about the first sparse tensor of the process."""
    import torch

    with without_warnings():
        torch.sparse_coo_tensor(torch.zeros(2, 1), torch.zeros(1), (1, 1))
    yield


@dataclass(frozen=True, kw_only=True)
class PeftMethod(Method):
    """A method of PEFT. A subclass describes it with `info` and returns its config.

    `added_in` is the version of PEFT that brought it. `extra` names a package that it needs besides
    those that are always installed; the extra of this name installs it.
    """

    added_in: ClassVar[tuple[int, int]] = (0, 18)
    extra: ClassVar[str] = ""

    @classmethod
    def lacks_package(cls) -> bool:
        """Whether the package of `extra` is not installed. This does not import it."""
        return bool(cls.extra) and find_spec(cls.extra) is None

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; PEFT must be recent enough, and the extra's package installed."""
        if self.lacks_package():
            return f"{self.title} needs {self.extra}: pip install peft-methods[{self.extra}]"
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
    transposed. `not_converted` says why PEFT does not turn its adapters into LoRA's over the same
    base model; it is empty if PEFT does.
    """

    takes_transposed: ClassVar[bool] = True
    not_converted: ClassVar[str] = "PEFT has no conversion for its layers"

    targets: Targets = ("query", "value")

    def __post_init__(self) -> None:
        check_roles(self.targets, f"[methods.{self.name}]")

    def needed_roles(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets

    def common(self, model: nn.Module, context: ApplyContext) -> dict[str, Any]:
        """Return the arguments that the configs of all these methods have.

        Those for transposed layers also say whether the layers are.
        """
        transposed = {"fan_in_fan_out": has_transposed_weights(model)}
        return {
            "task_type": context.task_type,
            "target_modules": context.architecture.pattern(self.targets),
            "modules_to_save": list(context.head),
            **(transposed if self.takes_transposed else {}),
        }

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method of PEFT; layers must be of a class and of sizes that it can train."""
        counted = architecture.counted
        if not self.takes_transposed and counted is not None and counted.is_transposed:
            return (
                f"{self.title} needs linear layers of torch, and those of "
                f"{architecture.model_type!r} store their weights transposed"
            )
        return super().unsupported(architecture, device) or self.misfit(architecture)

    def misfit(self, architecture: Architecture) -> str | None:
        """Return why the settings do not fit each other or the targets' sizes, or None."""
        return None

    def too_large(
        self,
        setting: str,
        architecture: Architecture,
        limit: Callable[[tuple[int, int]], int] = min,
        *,
        every: bool = False,
    ) -> str | None:
        """Return why a setting exceeds the limit of a target, or with `every` of all, or None.

        `limit` is computed from a target's inputs and outputs; by default it is the lower number.
        `every` is for settings that have no use beyond the limit, and work.
        """
        value, found = getattr(self, setting), architecture.linear_sizes(self.targets)
        sizes = sorted(found, key=limit)[-1 if every else 0] if found else None
        if sizes is None or value <= limit(sizes):
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} is too large for its targets "
            f"in {architecture.model_type!r}, the {'largest' if every else 'smallest'} of which "
            f"has {sizes[0]} inputs and {sizes[1]} outputs: set it to {limit(sizes)} or less"
        )

    def does_not_divide(
        self,
        setting: str,
        architecture: Architecture,
        sides: Callable[[tuple[int, int]], Iterable[int]] = tuple,
    ) -> str | None:
        """Return why a setting does not divide the sizes of every target, or None if it does.

        `sides` chooses from a target's inputs and outputs; by default both must be divisible.
        """
        value = getattr(self, setting)
        found = {side for sizes in architecture.linear_sizes(self.targets) for side in sides(sizes)}
        rest = sorted(side for side in found if side % value)
        if not rest:
            return None
        able = math.gcd(*found)
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} does not divide the sizes of "
            f"its targets in {architecture.model_type!r} ({', '.join(map(str, rest))}): set it to "
            f"{able} or a divisor of {able}"
        )
