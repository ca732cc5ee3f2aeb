"""Conversion of PEFT's adapters to LoRA's: the nearest update of a rank to each changed matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import Method
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.peft_method import TargetedPeftMethod, without_warnings
from peft_methods.methods.registry import METHODS
from peft_methods.models.module_names import has_transposed_weights, in_modules
from peft_methods.utils.errors import ModelError, OptionError, first_line

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor


TARGETS = (LoRA.name,)


@dataclass(frozen=True)
class LoRAAdapter:
    """An adapter of LoRA: the method with its settings, PEFT's config, and tensors by name.

    The tensors include those of the head. `layers` names the changed layers.
    """

    method: LoRA
    config: LoraConfig
    tensors: dict[str, Tensor]
    layers: tuple[str, ...]


def convertible() -> tuple[str, ...]:
    """Return the names of the methods whose adapters can be converted."""
    return tuple(name for name in METHODS if converts_to_lora(METHODS[name]))


def converts_to_lora(method: type[Method]) -> bool:
    """Whether the adapters of a method can be converted."""
    return not why_not(method)


def why_not(method: type[Method]) -> str:
    """Return why the adapters of a method cannot be converted; '' if they can."""
    if issubclass(method, TargetedPeftMethod):
        return method.not_converted
    return "only PEFT's adapters of linear layers can be converted"


def refusal(method: Method) -> str | None:
    """Return why a method's adapters cannot be converted to LoRA, or None if they can."""
    if not (reason := why_not(type(method))):
        return None
    return (
        f"{method.title} cannot be converted to LoRA: {reason}. Methods that can be converted: "
        f"{', '.join(convertible())}"
    )


def highest_rank(model: Any) -> int:
    """Return the highest rank of the smallest matrix that a model of PEFT changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (one for one in model.modules() if isinstance(one, BaseTunerLayer))
    return min(min(one.get_base_layer().weight.shape) for one in layers)


def as_lora(model: Any, method: Method, rank: int, head: Sequence[str]) -> LoRAAdapter:
    """Convert the adapter of a model of PEFT, which stays as it is.

    The result may have another rank than asked for, where the adapter is of that rank already
    (MiSS). Raises `OptionError` for a rank above the matrices, and `ModelError` for layers that
    PEFT cannot convert.
    """
    try:
        from peft.tuners.lora.conversion import convert_to_lora
    except ImportError:
        raise ModelError(
            "the installed peft converts no adapters to LoRA: pip install --upgrade peft"
        ) from None
    from peft.utils import get_peft_model_state_dict

    assert isinstance(method, TargetedPeftMethod)
    if rank > (limit := highest_rank(model)):
        raise OptionError(
            f"rank = {rank} is above the smallest matrix that {method.title} changes here: set it "
            f"to {limit} or less"
        )
    try:
        with without_warnings():
            config, tensors = convert_to_lora(model, rank=rank)
    except TypeError as error:  # of layers that store their weights transposed, for some methods
        raise ModelError(
            f"PEFT cannot convert {method.title} on this model: {first_line(error)}"
        ) from None
    own = {name: tensor.cpu() for name, tensor in tensors.items() if ".lora_" in name}
    # Of a head with several layers, PEFT 0.21 keeps one under a name that no layer has.
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    trained = {name: t.cpu() for name, t in saved.items() if in_modules(name, tuple(head))}
    layers = tuple(dict.fromkeys(name.partition(".lora_")[0] for name in own))
    found = own[f"{layers[0]}.lora_A.weight"].shape[0]
    given = model.peft_config["default"]
    config.r = config.lora_alpha = found
    config.rank_pattern, config.alpha_pattern = {}, {}
    config.target_modules, config.task_type = given.target_modules, given.task_type
    config.fan_in_fan_out, config.inference_mode = has_transposed_weights(model), True
    lora = LoRA(
        learning_rate=method.learning_rate,
        head_learning_rate=method.head_learning_rate,
        rank=found,
        alpha=found,
        targets=method.targets,
    )
    return LoRAAdapter(lora, config, {**own, **trained}, layers)
