"""AdapterFusion: adapters trained on other tasks, frozen, and a trained attention that mixes them for this one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peft_methods.errors import ModelError
from peft_methods.layouts import LAYOUTS, ModelShape
from peft_methods.methods.adapter import Adapter
from peft_methods.methods.base import TRAINED, Method, Task, freeze_all_but
from peft_methods.recipe import Count, DataSpec, NotNegative, Positive, Recipe, Share

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AdapterFusion(Method):
    """`sources` are the data sets that the mixed adapters come from; each trains one Pfeiffer adapter first.

    The sources are trained once a run and shared by the seeds; their cost stands apart from the fusion's.
    """

    name = "adapter_fusion"
    title = "AdapterFusion"
    paper = "Pfeiffer et al. 2021, arXiv:2005.00247"
    start_tolerance = None
    saved_as = "peft_methods"
    passes = 2.6

    sources: Annotated[tuple[str, ...], Field(min_length=2)]
    source_learning_rate: Positive
    source_train: Count = 320
    source_validation: Annotated[int, Field(ge=2)] = 100
    source_epochs: Count = 1
    reduction_factor: Count = 16
    nonlinearity: Literal["relu", "swish", "gelu"] = "relu"
    dropout: Share = 0.1
    value_penalty: NotNegative = 0.01

    def source_method(self) -> Adapter:
        """How each source is trained."""
        return Adapter(
            learning_rate=self.source_learning_rate,
            placement="pfeiffer",
            reduction_factor=self.reduction_factor,
            nonlinearity=self.nonlinearity,
        )

    def stages(self, recipe: Recipe) -> tuple[tuple[Recipe, Method], ...]:
        """One adapter a source, then the fusion on the recipe's own data."""
        budget = replace(recipe.budget, epochs=self.source_epochs)
        stages: list[tuple[Recipe, Method]] = []
        for number, source in enumerate(self.sources, 1):
            data = DataSpec(
                source=source,
                train=self.source_train,
                validation=self.source_validation,
                test=0,
                max_length=recipe.data.max_length,
                select_by=recipe.data.select_by,
                seed=recipe.data.seed,
                token_lengths=recipe.data.token_lengths,  # sources' own are not known; read texts have no need of them
            )
            name = f"{recipe.name}.source{number}-{_slug(source)}"
            stages.append(
                (replace(recipe, name=name, data=data, budget=budget), self.source_method())
            )
        return (*stages, (recipe, self))

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """Load the sources' adapters, freeze them, and put a fusion around the last norm of each layer."""
        from safetensors.torch import load_file

        from peft_methods.methods.bottleneck import (
            AroundNorm,
            Bottleneck,
            Fusion,
            encoder_layers,
            wrap,
        )

        assert task.shape.layout is not None, "supports() refuses unknown layouts"
        freeze_all_but(model, task.head)
        path, width = (
            LAYOUTS[task.shape.layout].ffn_norm,
            self.source_method().width(task.shape.hidden),
        )
        for layer in encoder_layers(model, task.shape.layout):
            blocks = [Bottleneck(task.shape.hidden, width, self.nonlinearity) for _ in self.sources]
            wrap(layer, path, AroundNorm, Fusion(task.shape.hidden, blocks, self.dropout))
        if task.stage_folders:
            sources = [load_file(folder / TRAINED) for folder in task.stage_folders]
            _copy_bottlenecks(model, sources)
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.requires_grad = ".bottlenecks." not in name
        return model.to(next(model.parameters()).device)

    def expected_trainable(self, shape: ModelShape) -> int:
        """Query and key with biases, value without, in each layer."""
        return shape.layers * (3 * shape.hidden**2 + 2 * shape.hidden)

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """Keeps the value maps near the identity: penalty * sum of squared distances."""
        from peft_methods.methods.bottleneck import Fusion

        parts = [
            module.distance_from_identity()
            for module in model.modules()
            if isinstance(module, Fusion)
        ]
        return self.value_penalty * sum(parts[1:], parts[0]) if self.value_penalty else None


def _slug(source: str) -> str:
    """The last part of a source, fit for a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", re.split(r"[/:]", source.rstrip("/"))[-1])


def _copy_bottlenecks(model: nn.Module, sources: list[dict[str, Tensor]]) -> None:
    """The i-th source's `….adapter.down.weight` becomes `….adapter.bottlenecks.i.down.weight`."""
    for name, parameter in model.named_parameters():
        before, found, rest = name.partition(".adapter.bottlenecks.")
        if found:
            number, _, leaf = rest.partition(".")
            weights = sources[int(number)].get(f"{before}.adapter.{leaf}")
            if weights is None or weights.shape != parameter.shape:
                raise ModelError(
                    f"source adapter {number} does not fit this model: {name} is missing or has another shape."
                )
            parameter.data.copy_(weights)
