"""IA3: learned vectors that rescale keys, values and the feed-forward activations (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.layouts import LAYOUTS, ModelShape, check_roles
from peft_methods.methods.base import Method, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """The paper's targets. PEFT's own default also matches the attention output, whose name ends alike."""

    name = "ia3"
    title = "IA3"
    paper = "Liu et al. 2022, arXiv:2205.05638"
    saved_as = "peft"

    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("key", "value", "ffn_output")

    def __post_init__(self) -> None:
        check_roles(self.targets, "[methods.ia3]")

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Rescale the targets' outputs, but the inputs of `ffn_output`; all vectors start at one."""
        from peft import IA3Config, get_peft_model

        assert task.shape.layout is not None, "supports() refuses unknown layouts"
        layout = LAYOUTS[task.shape.layout]
        feedforward = [role for role in self.targets if role == "ffn_output"]
        config = IA3Config(
            task_type="SEQ_CLS",
            target_modules=layout.pattern(self.targets),
            feedforward_modules=layout.pattern(feedforward) if feedforward else [],
            modules_to_save=list(task.head),
        )
        return get_peft_model(model, config)

    def merge(self, model: nn.Module) -> nn.Module | None:
        """PEFT's merge, then its wrappers off. (Its own unloading fails on a head of several layers, as RoBERTa's is.)"""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        model.merge_adapter()  # type: ignore[operator]  # inject() made a PEFT model of it
        base: nn.Module = model.get_base_model()  # type: ignore[operator]
        for name, module in list(base.named_modules()):
            if isinstance(module, BaseTunerLayer):
                base.set_submodule(name, module.get_base_layer())
            elif isinstance(module, ModulesToSaveWrapper):
                base.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
        return base

    def expected_trainable(self, shape: ModelShape) -> int:
        """One vector a target and layer: as long as the outputs, or as the inputs for `ffn_output`."""
        return shape.layers * sum(
            shape.dimensions[role][role != "ffn_output"] for role in self.targets
        )
