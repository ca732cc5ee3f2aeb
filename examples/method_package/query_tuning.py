"""Query tuning: all weights of the attention's queries are trained, the rest is frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods import ApplyContext, DefaultRate, Method, MethodInfo
from peft_methods.methods.base import freeze_all_but

if TYPE_CHECKING:
    from torch import nn

    from peft_methods.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class QueryTuning(Method):
    """Train the weight matrices of the queries in every layer, and not their biases."""

    info = MethodInfo(
        name="query_tuning",
        title="Query tuning",
        family="selective",
        paper="an example, not published",
        trained="the weights of the queries",
        about="trains the weight matrices of the attention's queries and freezes the rest.",
        aliases=r"query[\s_-]*tuning",
        needs="linear layers",
        learning_rates={"encoder": DefaultRate(1e-4, "a first guess: tune it")},
    )

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze everything except the head and the queries."""
        freeze_all_but(model, context.head)
        queries = re.compile(context.architecture.pattern(self.needed_roles()))
        for name, module in model.named_modules():
            if queries.fullmatch(name):
                module.weight.requires_grad = True
        return model

    def expected_trainable(self, architecture: Architecture) -> int:
        """Inputs times outputs of each query map."""
        return sum(
            inputs * outputs for inputs, outputs in architecture.linear_sizes(self.needed_roles())
        )

    def needed_roles(self) -> tuple[str, ...]:
        """The queries."""
        return ("query",)
