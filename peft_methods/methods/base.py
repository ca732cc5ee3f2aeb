"""The contract of a method: `MethodInfo` describes it, `Method` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from peft_methods.models.architecture import Architecture
from peft_methods.models.config import ModelKind, Quantization, kind_of
from peft_methods.models.encoder_decoder_maps import ENCODER_DECODER_ENDS
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.recipes.parallel import Strategy
from peft_methods.recipes.schema import STRICT, Positive, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


TRAINED = "trained.safetensors"  # a prerequisite run's trained parameters by name, in its folder
MEASURED = "best of a few on 600 validation sentences, MiniLM-L6, three seeds (recipe embedded)"
FAMILIES = (*("selective", "low_rank", "scaling", "adapters", "prompts", "orthogonal", "spectral"),)
SavedFormat = Literal["transformers", "peft", "peft_methods"]
Optimizer = Literal["adamw", "adamw_8bit"]
Needs = Literal["any model", "linear layers", "layer ends", "module map"]
T = TypeVar("T")


@dataclass(frozen=True)
class DefaultRate:
    """A learning rate for one kind of model, with the source of its value.

    `head` is a separate rate of the head, for methods whose own rate is too high for a new matrix.
    """

    value: float
    source: str
    head: float | None = None


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """Everything about a method that is not an algorithm: names, sources, looks, defaults.

    - `family` and `order` sort the tables: families in the order of `FAMILIES`, then `order`, then
      `name`.
    - `trained` says in a few words what is trained; `about` continues the sentence that begins with
      the title. Both are plain text.
    - `scope` is "all" for methods that train every weight, "head" for those that train the head.
    - `citations` are keys of the paper's references.bib, or whole BibTeX entries (they begin with
      @). Without any, an entry is made of `paper`.
    - `aliases`, `generic_aliases` and `not_aliases` are regular expressions, searched in lower-case
      names in tables made elsewhere. Generic words also occur in other methods' names and count
      only where no method's `aliases` match. A name with a match of `not_aliases` is another's.
    - `color` (#rrggbb) and `marker` (matplotlib's) are drawn from the name where they are empty.
    - `start_tolerance` is how far logits at step 0 may be from the base model's (None: no promise).
    - `quantization` is the format in which the frozen linear layers are loaded.
    - `unquantized_counterpart` names the method that does the same over unquantized weights.
    - `needs` says which models the method can train: all, those with linear layers in the roles
      that `needed_roles()` names, those whose layers' ends are known (`Architecture.ends`), or only
      those with a module map.
    - `cost_in_forward_passes` is the work of a training step: 1 for the forward pass, 1 for the
      gradient of the activations, 1 for that of the weights. Time estimates use it.
    - `reads_weights` says that the method computes with the frozen weights of the layers that it
      changes, beyond their products with the inputs. They are then kept in full precision.
    - `reads_rows` says that training rows decide how the method starts.
    - `stores_features` says that the frozen model computes what the head reads once for each row,
      and that later epochs read it from memory. Nothing but the head is trained then.
    - `optimizer` is AdamW with its state in 32 bits, or in 8: its steps cannot be replayed.
    - `strategies` are those of `budget.strategy` that can train it over several GPUs.
    - `learning_rates` are the defaults by kind of model. An encoder's also serve small encoders.
    """

    name: str
    title: str
    family: str
    paper: str
    trained: str
    about: str
    order: int = 100
    scope: Literal["all", "part", "head"] = "part"
    citations: tuple[str, ...] = ()
    aliases: str = ""
    generic_aliases: str = ""
    not_aliases: str = ""
    color: str = ""
    marker: str = ""
    saved_format: SavedFormat = "transformers"
    mergeable: bool = False
    start_tolerance: float | None = 0.0
    quantization: Quantization | None = None
    unquantized_counterpart: str | None = None
    needs: Needs = "module map"
    cost_in_forward_passes: float = 2.0
    reads_weights: bool = False
    reads_rows: bool = False
    stores_features: bool = False
    optimizer: Optimizer = "adamw"
    strategies: tuple[Strategy, ...] = ("ddp", "fsdp")
    learning_rates: Mapping[ModelKind, DefaultRate] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, int, str]:
        """The sort key of the tables. Unknown families come last."""
        known = self.family in FAMILIES
        return FAMILIES.index(self.family) if known else len(FAMILIES), self.order, self.name

    def rate_for(self, kind: ModelKind) -> DefaultRate | None:
        """The default learning rate for this kind of model, or None."""
        rates = self.learning_rates
        return rates.get(kind) or (rates.get("encoder") if kind == "small_encoder" else None)


class _FromInfo(Generic[T]):
    """A class property that reads the field of the same name from `info`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: Any) -> T:
        value: T = getattr(owner.info, self._name)
        return value


@dataclass(frozen=True)
class ApplyContext:
    """What a method may use when it is applied: sizes, the head's modules, prerequisite runs.

    `task_type` is PEFT's name of the task. `prerequisite_folders` are the saved models of the
    method's prerequisite runs, in their order. `unquantized` loads the same base model without
    quantisation, on the host. `train_batches` returns the first batches of training rows, at most
    so many, on the host; only methods whose `info.reads_rows` is set may call it.
    """

    architecture: Architecture
    head: tuple[str, ...]
    task_type: str
    prerequisite_folders: tuple[Path, ...] = ()
    unquantized: Callable[[], nn.Module] | None = None
    train_batches: Callable[[int], Sequence[Mapping[str, Tensor]]] | None = None


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with their own optimizer settings. Settings that are None stay as they are."""

    parameters: Sequence[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None

    def settings(self) -> dict[str, float]:
        """The settings that differ, by their names in a torch optimizer."""
        both = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return {name: value for name, value in both.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the weights are trained. Fields are hyperparameters; `info` describes the method.

    `head_learning_rate` is for methods whose few parameters need a rate too high for the head.
    """

    __pydantic_config__ = STRICT
    info: ClassVar[MethodInfo]
    name = _FromInfo[str]()
    title = _FromInfo[str]()

    learning_rate: Positive
    head_learning_rate: Positive | None = None

    @classmethod
    def defaults(cls, recipe: Recipe) -> dict[str, Any]:
        """Return the settings that follow from the recipe: the rate for its kind of model."""
        rate = cls.info.rate_for(kind_of(recipe.model))
        if rate is None:
            return {}
        head = {} if rate.head is None else {"head_learning_rate": rate.head}
        return {"learning_rate": rate.value, **head}

    @property
    def virtual_tokens(self) -> int:
        """The number of tokens by which the model's input becomes longer than a text."""
        return 0

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """Return the names of the settings without a default in the class."""
        return tuple(
            one.name
            for one in fields(cls)
            if one.default is MISSING and one.default_factory is MISSING
        )

    @classmethod
    def example_settings(cls) -> dict[str, Any]:
        """Return settings for a very small model, besides the learning rate. Tests use them."""
        return {}

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Add this method's parameters and make only them and the head trainable."""
        raise NotImplementedError

    def prerequisites(self, recipe: Recipe) -> tuple[tuple[Recipe, Method], ...]:
        """Return the runs whose trained weights this method needs, in the order of training."""
        return ()

    def expected_trainable(self, architecture: Architecture) -> int | None:
        """Trainable parameters less the head's, from the sizes alone; None if those are unknown."""
        raise NotImplementedError

    @classmethod
    def possible_counts(cls, architecture: Architecture) -> Iterable[int]:
        """Return all trainable counts (less the head) that usual hyperparameters can give.

        The audit of tables made elsewhere compares with them. Empty: counts are not checked.
        """
        return ()

    def param_groups(self, model: nn.Module, head: Sequence[str]) -> Sequence[ParamGroup]:
        """Return the parameters that need their own optimizer settings; by default the head's rate.

        Parameters in no group get the recipe's settings. `head` names the head's modules.
        """
        if self.head_learning_rate is None:
            return ()
        from peft_methods.models.module_names import in_modules

        own = [p for name, p in model.named_parameters() if in_modules(name, tuple(head))]
        return (ParamGroup(own, self.head_learning_rate),)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """Return why this method cannot train such a model on this device, or None if it can."""
        if architecture.module_map is not None or self.info.needs == "any model":
            return None
        if self.info.needs == "layer ends" and architecture.ends:
            return None
        if self.info.needs in {"module map", "layer ends"}:
            more = ENCODER_DECODER_ENDS if self.info.needs == "layer ends" else ()
            return (
                f"{self.title} needs a model whose parts are known "
                f"({', '.join((*MODULE_MAPS, *more))}), not {architecture.model_type!r}"
            )
        found = architecture.known_roles()
        lacking = [role for role in self.needed_roles() if role not in found]
        if not lacking:
            return None
        way_out = f"set methods.{self.name}.targets to some of its others: {', '.join(found)}"
        return (
            f"{self.title} needs linear layers for {', '.join(lacking)}, and no layer of "
            f"{architecture.model_type!r} is known as such; {way_out if found else 'it has none'}"
        )

    def needed_roles(self) -> tuple[str, ...]:
        """Return the roles of the linear layers that the method changes."""
        return ()

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Fold the method's parameters into the base weights; None where that is impossible.

        The model must not be used afterwards.
        """
        return None

    def saved_parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return what the `peft_methods` format stores, by name: by default all trained parameters.

        A method that loads frozen parameters of its own (from prerequisite runs) adds them.
        """
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    def has_zero_gradient(self, name: str) -> bool:
        """Whether the trainable parameter `name` has no gradient in exact arithmetic.

        Such a parameter need not move in training.
        """
        return False

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a regularising term that is added to the loss of every training step, or None."""
        return None

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Change the model after optimizer step `step` of `steps`, the first being 1.

        Gradients are still there. It may read values on the host, so a method with such a step is
        not trained by an engine that replays steps, and an interrupted run starts again.
        """

    @classmethod
    def acts_after_steps(cls) -> bool:
        """Whether the method has an `after_step`."""
        return cls.after_step is not Method.after_step


def freeze_all_but(model: nn.Module, trainable: Sequence[str]) -> None:
    """Make only the parameters within these modules trainable."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(name.startswith(f"{module}.") for module in trainable)
