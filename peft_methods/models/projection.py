"""The projection of a language model's states to its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.models.decoder_maps import DECODER_MAPS

if TYPE_CHECKING:
    from torch import Tensor

# What models do with the outputs of the projection, by model type: the setting of the config that
# they multiply by, divide by, or cap with.
MULTIPLIED = {"cohere": "logit_scale", "cohere2": "logit_scale"}
DIVIDED = {"granite": "logits_scaling"}
CAPPED = {"gemma2": "final_logit_softcapping", "gemma3_text": "final_logit_softcapping"}
# Those of which it is known; a test compares each with the model's own loss.
KNOWN = frozenset({*DECODER_MAPS, *MULTIPLIED, *DIVIDED, "olmo2", "starcoder2", "stablelm"})


@dataclass(frozen=True)
class Projection:
    """A linear map, and what the model does with its outputs.

    `weight` has the shape (vocabulary, width), `bias` (vocabulary,). Outputs are multiplied by
    `scale`, and then capped: cap * tanh(outputs / cap).
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None


def projection_of(model: Any) -> Projection | None:
    """Return the projection of a causal language model, or None if it is not a plain linear map.

    It may be trained by a method in another way, be divided among GPUs, or belong to a model type
    of which it is not known what it does with the outputs.
    """
    from torch import nn

    base = transformers_model(model)
    head, kind = base.get_output_embeddings(), base.config.model_type
    if kind not in KNOWN or type(head) is not nn.Linear or hasattr(head.weight, "full_tensor"):
        return None
    return Projection(head.weight, head.bias, *_scale_and_cap(base.config))


def transformers_model(model: Any) -> Any:
    """Return the model of transformers within the wrappers of PEFT."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


@contextmanager
def forward_replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Context manager: the module computes this function."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward  # uncovers the method of its class
        else:
            module.forward = own


def _scale_and_cap(config: Any) -> tuple[float, float | None]:
    def setting(names: Mapping[str, str]) -> float | None:
        found: float | None = getattr(config, names.get(config.model_type, ""), None)
        return found

    scale = (setting(MULTIPLIED) or 1.0) / (setting(DIVIDED) or 1.0)
    return scale, setting(CAPPED)
