"""AdapterFusion: a trained attention over frozen adapters that were trained on other tasks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from peft_methods.data.bundled import DOMAINS
from peft_methods.methods.adapters.bottleneck import Adapter, too_narrow
from peft_methods.methods.base import (
    MEASURED,
    TRAINED,
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.bundled_names import PREFIX, bundled_name
from peft_methods.recipes.schema import Count, DataSpec, Dropout, NotNegative, Positive, Recipe
from peft_methods.utils.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

FUSION = ".adapter."  # part of the names of all parameters that the method adds


@dataclass(frozen=True, kw_only=True)
class AdapterFusion(Method):
    """`sources` are the data sets of the mixed adapters; each trains one Pfeiffer adapter first.

    These prerequisite runs are shared by all seeds. Their cost is reported separately.
    """

    info = MethodInfo(
        name="adapter_fusion",
        title="AdapterFusion",
        family="adapters",
        order=1,
        paper="Pfeiffer et al. 2021, arXiv:2005.00247",
        citations=("pfeiffer2021fusion",),
        trained=("attention over frozen adapters from other tasks, which are trained first, once"),
        about=(
            "first trains bottleneck adapters on other tasks, freezes them, and then trains an "
            "attention over their outputs for the task at hand."
        ),
        aliases=r"adapter[\s_-]*fusion",
        color="#cc79a7",
        marker="p",
        saved_format="peft_methods",
        needs="layer ends",
        start_tolerance=None,
        cost_in_forward_passes=2.6,
        strategies=("ddp",),  # its penalty is of whole weights
        learning_rates={
            "small_encoder": DefaultRate(1e-3, MEASURED),
            "encoder": DefaultRate(5e-5, "AdapterHub's fusion example, for SST-2"),
        },
    )

    sources: Annotated[tuple[str, ...], Field(min_length=2)]
    source_learning_rate: Positive
    source_train: Count = 320
    source_validation: Annotated[int, Field(ge=2)] = 100
    source_epochs: Count = 1
    reduction_factor: Count = 16
    nonlinearity: Literal["relu", "swish", "gelu"] = "relu"
    dropout: Dropout = 0.1
    value_penalty: NotNegative = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(map(bundled_name, self.sources)))

    def source_method(self) -> Adapter:
        """Return the method that trains each source."""
        return Adapter(
            learning_rate=self.source_learning_rate,
            placement="pfeiffer",
            reduction_factor=self.reduction_factor,
            nonlinearity=self.nonlinearity,
        )

    @classmethod
    def defaults(cls, recipe: Recipe) -> dict[str, Any]:
        """The adapters' own default rate; for bundled data, the other bundled data as sources."""
        found = super().defaults(recipe)
        if "learning_rate" in (adapter := Adapter.defaults(recipe)):
            found["source_learning_rate"] = adapter["learning_rate"]
        if recipe.data.source.startswith(PREFIX):
            bundled = [f"{PREFIX}{domain}" for domain in DOMAINS]
            found["sources"] = [one for one in bundled if one != recipe.data.source]
        return found

    @classmethod
    def example_settings(cls) -> dict[str, Any]:
        """Two sources, and bottlenecks that are wide enough for a tiny model."""
        return {"sources": ["a", "b"], "source_learning_rate": 0.01, "reduction_factor": 4}

    def prerequisites(self, recipe: Recipe) -> tuple[tuple[Recipe, Method], ...]:
        """Return one adapter run for each source."""
        budget = replace(recipe.budget, epochs=self.source_epochs)
        runs: list[tuple[Recipe, Method]] = []
        for number, source in enumerate(self.sources, 1):
            data = DataSpec(
                source=source,
                train=self.source_train,
                validation=self.source_validation,
                test=0,
                max_length=recipe.data.max_length,
                select_by=recipe.data.select_by,
                seed=recipe.data.seed,
                token_lengths=recipe.data.token_lengths,  # those of the sources are unknown
            )
            # All sizes of a learning curve share these runs.
            name = f"{recipe.curve_of or recipe.name}.source{number}-{_slug(source)}"
            source_recipe = replace(recipe, name=name, data=data, budget=budget, curve_of="")
            runs.append((source_recipe, self.source_method()))
        return tuple(runs)

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Load and freeze the sources' adapters, and put a fusion around each layer's last norm."""
        from safetensors.torch import load_file

        from peft_methods.methods.adapters.modules import (
            Bottleneck,
            Fusion,
            adapted_layers,
            wrap_end,
        )

        freeze_all_but(model, context.head)
        hidden = context.architecture.hidden
        width = self.source_method().width(hidden)
        for layer, ends in adapted_layers(model, context.architecture.ends):
            blocks = [Bottleneck(hidden, width, self.nonlinearity) for _ in self.sources]
            wrap_end(layer, ends, Fusion(hidden, blocks, self.dropout))
        if context.prerequisite_folders:
            sources = [load_file(folder / TRAINED) for folder in context.prerequisite_folders]
            _copy_bottlenecks(model, sources)
        for name, parameter in model.named_parameters():
            if FUSION in name:
                parameter.requires_grad = ".bottlenecks." not in name
        return model.to(next(model.parameters()).device)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method; the bottleneck must not be narrower than 1."""
        reason = super().unsupported(architecture, device)
        return reason or too_narrow(self, self.reduction_factor, architecture)

    def expected_trainable(self, architecture: Architecture) -> int:
        """Query and key with biases, value without bias, in each layer."""
        return architecture.adapted_layers * (3 * architecture.hidden**2 + 2 * architecture.hidden)

    def saved_parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the trained parameters and the frozen adapters that the fusion mixes."""
        return super().saved_parameters(model) | {
            name: p for name, p in model.named_parameters() if FUSION in name
        }

    def has_zero_gradient(self, name: str) -> bool:
        """The key map's bias shifts all scores of a query equally, which softmax ignores."""
        return name.endswith(f"{FUSION}key.bias")

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Keep the value maps near the identity: value_penalty * sum of squared distances."""
        from peft_methods.methods.adapters.modules import Fusion

        parts = [
            module.distance_from_identity()
            for module in model.modules()
            if isinstance(module, Fusion)
        ]
        return self.value_penalty * sum(parts[1:], parts[0]) if self.value_penalty else None


def _slug(source: str) -> str:
    """Return the last part of a source in a form that a file name allows."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", re.split(r"[/:]", source.rstrip("/"))[-1])


def _copy_bottlenecks(model: nn.Module, sources: list[dict[str, Tensor]]) -> None:
    """Copy the i-th source's `adapter.down.weight` to `adapter.bottlenecks.i.down.weight`, etc."""
    for name, parameter in model.named_parameters():
        before, found, rest = name.partition(".adapter.bottlenecks.")
        if found:
            number, _, leaf = rest.partition(".")
            weights = sources[int(number)].get(f"{before}.adapter.{leaf}")
            if weights is None or weights.shape != parameter.shape:
                raise ModelError(
                    f"source adapter {number} does not fit this model: {name} is missing or has "
                    f"another shape."
                )
            parameter.data.copy_(weights)
