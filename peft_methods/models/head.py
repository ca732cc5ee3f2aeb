"""The classification head of a model: labels, poolers, and fresh weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from peft_methods.models.model_head import ModelHead
from peft_methods.models.module_names import in_modules, top_modules
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def name_labels(config: Any, label_names: tuple[str, ...], problem_type: str = "") -> None:
    """Write label names and their kind to the model's config. Without labels it stays as it is."""
    if problem_type:
        config.problem_type = problem_type
    if not label_names:
        return
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: label for label, name in enumerate(label_names)}


def pooler_modules(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of poolers, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(("pooler.dense", ".pooler"))
    }


def untrained_poolers(model: nn.Module) -> set[str]:
    """Return the parameters of poolers whose bias is all zero.

    Training would have changed the bias, so these weights are still the initial random ones.
    Sentence encoders average their tokens and have such an unused pooler (all-MiniLM-L6-v2, for
    example).
    """
    poolers = pooler_modules(model)
    idle = [name for name, one in poolers.items() if one.bias is not None and not one.bias.any()]
    return {f"{name}.{part}" for name in idle for part in ("weight", "bias")}


def reinitialise(model: PreTrainedModel, modules: tuple[str, ...], *, but: set[str]) -> None:
    """Reinitialise the linear layers in these modules, except the weights in `but`.

    Those were just drawn. The values depend on the seed. A checkpoint of a finished classifier
    contains its head, but here every method starts with a new one.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Linear)
            and in_modules(f"{name}.weight", modules)
            and f"{name}.weight" not in but
        ):
            nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
            if module.bias is not None:  # ModernBERT's head has a layer without one
                nn.init.zeros_(module.bias)


def head_modules(
    model: PreTrainedModel, fresh: set[str], spec: ModelSpec, kind: ModelHead
) -> tuple[str, ...]:
    """Return the classifier's own modules, and a pooler without trained weights.

    Freezing a randomly initialised pooler is a known mistake. A pretrained head has no modules of
    its own. Raises `ModelError` if the stored model lacks weights.
    """
    head = () if kind.pretrained else top_modules(model)
    untrained = {name for name in fresh if not in_modules(name, head)}
    poolers = {name.rsplit(".", 1)[0] for name in untrained if ".pooler." in name}
    absent = sorted(name for name in untrained if not in_modules(name, tuple(poolers)))
    if absent:
        raise ModelError(
            f"{spec.source!r} lacks {len(absent)} tensors of its {kind.part} (the first is "
            f"{absent[0]}); its weights do not match its config. Fix one of them, or set "
            f"model.source to another model.",
            setting="model.source",
        )
    return (*head, *sorted(poolers))
