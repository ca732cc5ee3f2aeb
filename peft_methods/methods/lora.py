"""LoRA: a trained low-rank update beside frozen linear maps (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.layouts import LAYOUTS, ModelShape, check_roles
from peft_methods.methods.base import Method, Task
from peft_methods.recipe import Count, Positive, Share

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """`targets` are roles of a layer: query, key, value, attention_output, ffn_input, ffn_output."""

    name = "lora"
    title = "LoRA"
    paper = "Hu et al. 2022, arXiv:2106.09685"
    saved_as = "peft"

    rank: Count = 8
    alpha: Positive = 16
    dropout: Share = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("query", "value")

    def __post_init__(self) -> None:
        check_roles(self.targets, f"[methods.{self.name}]")

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Wrap the targets; the up-projections start at zero, so the model starts as it was."""
        from peft import LoraConfig, get_peft_model

        assert task.shape.layout is not None, "supports() refuses unknown layouts"
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=LAYOUTS[task.shape.layout].pattern(self.targets),
            modules_to_save=list(task.head),
        )
        return get_peft_model(model, config)

    def merge(self, model: nn.Module) -> nn.Module | None:
        """PEFT's merge."""
        merged: nn.Module = model.merge_and_unload()  # type: ignore[operator]  # inject() made a PEFT model of it
        return merged

    def expected_trainable(self, shape: ModelShape) -> int:
        """rank * (inputs + outputs) for each target in each layer."""
        return shape.layers * sum(self.rank * sum(shape.dimensions[role]) for role in self.targets)
