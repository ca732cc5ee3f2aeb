"""What the methods that PEFT implements have in common: each is one of its configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models.module_maps import check_roles

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

Targets = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class PeftMethod(Method):
    """A method of PEFT. A subclass describes it with `info` and returns its config."""

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Return PEFT's config for the model, with the head in `modules_to_save`."""
        raise NotImplementedError

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Wrap the model as the config says."""
        from peft import get_peft_model

        return get_peft_model(model, self.config(model, context))

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
    """A method of PEFT that changes linear layers: `targets` are their roles (see `ROLES`)."""

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
