"""The contract of a method and the registry of all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peft_methods.building import build
from peft_methods.errors import OptionError, unknown
from peft_methods.layouts import LAYOUTS, ModelShape
from peft_methods.recipe import STRICT, Positive, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINED = "trained.safetensors"  # what a stage leaves in its folder: its trained parameters by name
Supported = Literal["any encoder", "known layouts"]


@dataclass(frozen=True)
class Task:
    """What a method may know when it is injected: the model's shape, its head, and what earlier stages left.

    `stage_folders` are the saved models of the method's earlier stages, in their order.
    """

    shape: ModelShape
    head: tuple[str, ...]
    stage_folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the weights are trained: hyperparameters as fields, what the method is as class variables.

    `start_tolerance` is how far logits at step 0 may be from the base model's (None: no promise).
    `passes` is the work of a training step in forward passes of the encoder: 1 forward, 1 for the gradient of
    activations, 1 for that of the weights. It serves time estimates and nothing else.
    `head_learning_rate` is for methods whose own few parameters want a rate that a new head would not survive.
    """

    __pydantic_config__ = STRICT
    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    start_tolerance: ClassVar[float | None] = 0.0
    quantization: ClassVar[Literal["nf4"] | None] = None
    saved_as: ClassVar[Literal["transformers", "peft", "peft_methods"]] = "transformers"
    needs: ClassVar[Supported] = "known layouts"
    passes: ClassVar[float] = 2.0

    learning_rate: Positive
    head_learning_rate: Positive | None = None

    def inject(self, model: nn.Module, task: Task) -> nn.Module:
        """The model with this method's parameters in it, and only those and the head trainable."""
        raise NotImplementedError

    def stages(self, recipe: Recipe) -> tuple[tuple[Recipe, Method], ...]:
        """What is trained, in order; the last is the method itself on the recipe."""
        return ((recipe, self),)

    def expected_trainable(self, shape: ModelShape) -> int | None:
        """Trainable parameters less the head's, in closed form; None where the layout is not known."""
        raise NotImplementedError

    def supports(self, shape: ModelShape, device: str) -> str | None:
        """Why this method cannot train such a model there, or None."""
        if self.needs == "known layouts" and shape.layout is None:
            return f"{self.title} needs a model whose parts are known ({', '.join(LAYOUTS)}), not {shape.model_type!r}"
        return None

    def merge(self, model: nn.Module) -> nn.Module | None:
        """The trained model with the method's part folded into the base's weights; None where that cannot be done.

        The model given is used up.
        """
        return None

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """A regularising term of the method's own, added to the loss of every training step."""
        return None


def freeze_all_but(model: nn.Module, trainable: Sequence[str]) -> None:
    """Only parameters within these modules are trained from here on."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(name.startswith(f"{module}.") for module in trainable)


class Registry:
    """Every method by name, in the order of the tables."""

    def __init__(self, methods: Sequence[type[Method]]) -> None:
        self._methods = {method.name: method for method in methods}

    def __iter__(self) -> Any:
        return iter(self._methods)

    def __getitem__(self, name: str) -> type[Method]:
        if name not in self._methods:
            raise OptionError(unknown("method", name, self._methods))
        return self._methods[name]

    def create(self, name: str, settings: Mapping[str, Any], where: str) -> Method:
        """A method with its hyperparameters, or an `OptionError` that names the wrong one."""
        return build(self[name], settings, f"{where}, [methods.{name}]")
