"""IA3: learned vectors that rescale keys, values and the feed-forward activations (PEFT's)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from peft_methods.methods.base import MEASURED, ApplyContext, DefaultRate, Method, MethodInfo
from peft_methods.models.architecture import Architecture
from peft_methods.models.module_maps import check_roles
from peft_methods.models.module_names import has_transposed_weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """The paper's targets. PEFT's default also matches the attention output, by its name.

    A model with one matrix for query, key and value has its queries rescaled too. Their scales
    multiply those of the keys, so this adds nothing that the keys' scales could not do.
    """

    info = MethodInfo(
        name="ia3",
        title="IA3",
        family="scaling",
        order=0,
        paper="Liu et al. 2022, arXiv:2205.05638",
        citations=("liu2022ia3",),
        trained=(
            "scales of keys, values and feed-forward activations: the paper's targets, not PEFT's "
            "default"
        ),
        about=(
            "learns vectors that rescale keys, values, and the inner activations of the "
            "feed-forward blocks, and leaves the rest of the model frozen."
        ),
        aliases=r"\(?ia\)?\s*\^?\s*[3³]",
        color="#d55e00",
        marker="P",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={
            "small_encoder": DefaultRate(4e-2, MEASURED, head=2e-3),
            "encoder": DefaultRate(
                5e-3, "between the paper's 3e-3 and 1e-2, measured on MPNet-base and IMDb"
            ),
            "decoder": DefaultRate(3e-3, "the paper's, for T0-3B"),
        },
    )

    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("key", "value", "ffn_output")

    def __post_init__(self) -> None:
        check_roles(self.targets, "[methods.ia3]")

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Rescale the targets' outputs, for `ffn_output` its inputs. Vectors start at one."""
        from peft import IA3Config, get_peft_model

        architecture = context.architecture
        feedforward = [role for role in self.targets if role == "ffn_output"]
        config = IA3Config(
            task_type=context.task_type,
            target_modules=architecture.pattern(self.targets),
            feedforward_modules=architecture.pattern(feedforward) if feedforward else [],
            modules_to_save=list(context.head),
            fan_in_fan_out=has_transposed_weights(model),
        )
        return get_peft_model(model, config)

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Merge as PEFT does, then remove its wrappers.

        PEFT's own unloading fails on a head of several layers, such as RoBERTa's.
        """
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

    def expected_trainable(self, architecture: Architecture) -> int:
        """One vector per target and layer, as long as the outputs (`ffn_output`: the inputs)."""
        others = [role for role in self.targets if role != "ffn_output"]
        inputs = architecture.linear_sizes(set(self.targets) - set(others))
        outputs = architecture.linear_sizes(others)
        return sum(size for size, _ in inputs) + sum(size for _, size in outputs)

    def needed_roles(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Every set of targets, each scaled at its inputs (like a feed-forward map) or outputs."""
        sides = [(0, one.inputs, one.outputs) for one in architecture.linear_layers]
        return {
            architecture.distinct_layers * sum(chosen) for chosen in itertools.product(*sides)
        } - {0}
