"""IA3: learned vectors that rescale keys, values and the feed-forward activations (PEFT's)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peft_methods.methods.base import MEASURED, ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, Targets
from peft_methods.models.architecture import Architecture

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class IA3(TargetedPeftMethod):
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

    scaled_at_inputs: ClassVar[tuple[str, ...]] = ("ffn_output",)

    targets: Targets = ("key", "value", "ffn_output")

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Rescale the targets' outputs, for `ffn_output` its inputs. Vectors start at one."""
        from peft import IA3Config

        feedforward = [role for role in self.targets if role in self.scaled_at_inputs]
        pattern = context.architecture.pattern
        return IA3Config(
            **self.common(model, context),
            feedforward_modules=pattern(feedforward) if feedforward else [],
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """outputs (`ffn_output`: inputs) for each linear layer in the targets."""
        others = [role for role in self.targets if role not in self.scaled_at_inputs]
        inputs = architecture.linear_sizes(set(self.targets) - set(others))
        outputs = architecture.linear_sizes(others)
        return sum(size for size, _ in inputs) + sum(size for _, size in outputs)

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Every set of targets, each scaled at its inputs (like a feed-forward map) or outputs."""
        sides = [(0, one.inputs, one.outputs) for one in architecture.linear_layers]
        return {
            architecture.distinct_layers * sum(chosen) for chosen in itertools.product(*sides)
        } - {0}
