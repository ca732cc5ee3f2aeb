"""What the methods that PEFT implements have in common: each is one of its configs."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_maps import check_roles

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

Targets = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class PeftMethod(Method):
    """A method of PEFT. A subclass describes it with `info` and returns its config.

    `since` is the first release of PEFT that has it. `reads_weights`: its layers compute with the
    frozen weights themselves, which engines therefore keep in full precision.
    """

    since: ClassVar[tuple[int, int]] = (0, 18)
    reads_weights: ClassVar[bool] = False

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As any method; the installed PEFT must have it."""
        installed = version("peft")
        if tuple(map(int, re.findall(r"\d+", installed)[:2])) < self.since:
            needed = ".".join(map(str, self.since))
            return f"{self.title} needs PEFT {needed} or later, not {installed}: update it"
        return super().unsupported(architecture, device)

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Return PEFT's config for the model, with the head in `modules_to_save`."""
        raise NotImplementedError

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Wrap the model as the config says."""
        from peft import get_peft_model

        with self.wrapping():
            wrapped: nn.Module = get_peft_model(model, self.config(model, context))
        if self.reads_weights:
            keep_precision(wrapped)
        return wrapped

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

    `takes_conv1d`: it also trains GPT-2's layers, which store their weights transposed.
    """

    takes_conv1d: ClassVar[bool] = True

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
        """As PEFT's methods; the settings must fit the targets' sizes (see `misfit`)."""
        if reason := super().unsupported(architecture, device):
            return reason
        counted = architecture.counted
        if not self.takes_conv1d and counted is not None and counted.has_conv1d:
            return (
                f"{self.title} cannot train {architecture.model_type!r}: its layers are Conv1D, "
                f"and PEFT has this method for torch's Linear alone"
            )
        return self.misfit(architecture.linear_sizes(self.targets), architecture.model_type)

    def misfit(self, sizes: Iterable[tuple[int, int]], model_type: str) -> str | None:
        """Return why the settings do not fit targets of these (inputs, outputs), or None."""
        return None

    def too_large(self, setting: str, limit: int, model_type: str) -> str | None:
        """Return a message if the setting is above the limit that the targets' sizes give."""
        value = getattr(self, setting)
        if value <= limit:
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} is too large for the targets "
            f"in {model_type!r}; set it to {limit} or less"
        )

    def not_dividing(self, setting: str, widths: Iterable[int], model_type: str) -> str | None:
        """Return a message if the setting does not divide all of these widths."""
        value, common = getattr(self, setting), math.gcd(*widths)
        if common % value == 0:
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} does not divide the widths of "
            f"all targets in {model_type!r}; set it to a divisor of {common}"
        )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Context manager: ignore warnings of PEFT and torch that say nothing about the method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def keep_precision(model: nn.Module) -> None:
    """Mark the layers within PEFT's, whose weights are then never held in half precision."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.get_base_layer().keeps_precision = True


def drawn_seed() -> int:
    """Draw a seed from torch's stream, so that it follows from the seed of the run.

    PEFT's own default is the same in every run.
    """
    import torch

    return int(torch.randint(2**31, ()))
