"""BEFT: a bias is added to the values and trained (PEFT's)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, Targets, without_warnings
from peft_methods.methods.rates import AS_BITFIT, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.models.linear_layers import roles_of

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class BEFT(TargetedPeftMethod):
    """A trained bias beside that of the model, if it has one, at the outputs of the `targets`."""

    info = MethodInfo(
        name="beft",
        title="BEFT",
        family="selective",
        order=9,
        paper="Huang et al. 2026, arXiv:2509.15974",
        citations=("huang2026beft",),
        trained="biases added to the values",
        about=(
            "adds a bias to the values of each layer and trains it alone. Models without "
            "biases get one too."
        ),
        aliases=r"\bbeft",
        saved_format="peft",
        needs="linear layers",
        mergeable=False,  # a model without biases has none to add them to
        learning_rates={**AS_BITFIT, "decoder": UNTUNED},
    )
    added_in = (0, 20)
    takes_transposed = False

    targets: Targets = ("value",)

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The biases start at zero."""
        from peft import BeftConfig

        return BeftConfig(**self.common(model, context), init_weights=True)

    def wrapping(self) -> AbstractContextManager[Any]:
        """PEFT warns that it cannot merge biases into layers without; here it never does."""
        return without_warnings()

    def expected_trainable(self, architecture: Architecture) -> int:
        """outputs for each linear layer in the targets."""
        return sum(outputs for _, outputs in architecture.linear_sizes(self.targets))

    def has_zero_gradient(self, name: str) -> bool:
        """A bias of keys alone shifts all scores of a query equally, which softmax ignores."""
        return roles_of(name.partition(".beft_bias")[0]) == ("key",)
