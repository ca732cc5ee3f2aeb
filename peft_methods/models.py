"""A recipe's sequence classifier, with its tokenizer and its architecture.

The weights are pretrained, pretrained in 4 bits, or random according to a config.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peft_methods import shapes
from peft_methods.configs import (
    config_digest,
    folder_or_id,
    has_tokenizer,
    load_config,
    loading_error,
    padding_of,
)
from peft_methods.errors import ModelError
from peft_methods.layouts import ModelShape, shape_of
from peft_methods.recipe import ModelSpec
from peft_methods.rows import tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Model types whose position ids start after the padding token's id.
COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Base:
    """A loaded classifier before any method is applied.

    `head` names the modules without pretrained weights, which are always trained. `weights_sha256`
    covers the encoder's parameters in order, so it identifies the weights wherever they are stored.
    `config_sha256` covers the fields that decide how they are used: activations, dropout, sizes.
    `tokenizer_sha256` covers what turns texts into ids.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    shape: ModelShape
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str

    def check_length(self, max_length: int) -> None:
        """Raise `ModelError` if rows can be longer than the model's position embeddings."""
        config = self.model.config
        reserved = config.pad_token_id + 1 if config.model_type in COUNT_FROM_PADDING else 0
        limit = getattr(config, "max_position_embeddings", max_length + reserved) - reserved
        if max_length > limit:
            raise ModelError(
                f"data.max_length = {max_length}, but this model reads at most {limit} tokens. "
                f"Set data.max_length = {limit} or less.",
                setting="data.max_length",
            )


def load(
    spec: ModelSpec,
    label_names: tuple[str, ...],
    *,
    quantization: str | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    drawn: Path | None = None,
) -> Base:
    """Load a recipe's classifier, in fp32 or with the encoder's linear layers in 4 bits.

    Raises `ModelError`. Random weights need no download: the config is that of a preset or a local
    one, and so is the tokenizer. Random weights to be quantised are read from a file: from the
    folder `drawn`, written by `save_drawn`, or from a temporary one.
    """
    config = load_config(spec)
    tokenizer = _load_tokenizer(spec, config)
    config_sha256 = config_digest(config)
    _name_labels(config, label_names)
    compute = DTYPES[precision] if quantization else None
    model, fresh = _load_model(config, spec, compute, device, drawn)
    head = _head_modules(model, fresh, spec)
    pooler = any(not in_modules(f"{name}.weight", head) for name in _poolers(model))
    size = sum(p.numel() for name, p in model.named_parameters() if in_modules(name, head))
    shape = shape_of(config, head_parameters=size, pooler=pooler)
    return Base(
        model,
        tokenizer,
        head,
        shape,
        _weights_digest(model, head),
        config_sha256,
        tokenizer_digest(tokenizer),
    )


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer. Raises `ModelError`.

    An architecture without one gets a tokenizer for ids written as numbers.
    """
    return _load_tokenizer(spec, load_config(spec))


def save_drawn(spec: ModelSpec, label_names: tuple[str, ...], folder: Path) -> None:
    """Save the random weights of a classifier in a folder, so that `load` can quantise them.

    Raises `ModelError`.
    """
    config = load_config(spec)
    _name_labels(config, label_names)
    _draw(config, spec).save_pretrained(folder)


def _name_labels(config: Any, label_names: tuple[str, ...]) -> None:
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: label for label, name in enumerate(label_names)}


def _poolers(model: nn.Module) -> dict[str, nn.Linear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith("pooler.dense")
    }


def in_modules(parameter: str, modules: tuple[str, ...]) -> bool:
    """Whether a parameter is in one of these modules, also if PEFT added a prefix to its name."""
    return any(f".{module}." in f".{parameter}" for module in modules)


def top_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the classifier's modules outside the encoder that have parameters."""
    prefix = str(model.base_model_prefix)
    return tuple(
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    )


def _load_tokenizer(spec: ModelSpec, config: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not has_tokenizer(spec):
        return shapes.number_tokenizer(config.vocab_size, padding_of(config))
    try:
        return AutoTokenizer.from_pretrained(
            folder_or_id(spec.source),
            revision=spec.revision or "main",
            trust_remote_code=spec.trust_remote_code,
        )
    except Exception as error:
        raise loading_error(spec, error) from None


def _load_model(
    config: Any, spec: ModelSpec, compute: torch.dtype | None, device: str, drawn: Path | None
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model and the names of the parameters without trained weights.

    The model is in fp32, or in 4 bits if `compute` gives the dtype to compute in. Random weights
    count as trained, so that the head has the same parameters as in the real model.
    """
    options: dict[str, Any] = {
        "config": config,
        "dtype": torch.float32,
        "trust_remote_code": spec.trust_remote_code,
    }
    if compute is not None:
        options |= _nf4_options(config, spec, compute, device)
    missing: set[str] = set()
    if spec.weights == "random":
        model, idle = _random(spec, options, drawn), set[str]()
    else:
        model, missing = _from_pretrained(spec, options)
        idle = _untrained_poolers(model)
    fresh = missing | idle
    _reinitialise(
        model, (*top_modules(model), *(name.rpartition(".")[0] for name in fresh)), but=missing
    )
    if compute is not None:
        _disable_repacking(model)
        return model, fresh  # already on its device
    return model.to(device), fresh


def _draw(config: Any, spec: ModelSpec) -> PreTrainedModel:
    """Draw random weights, the same encoder for all seeds, as with pretrained weights."""
    from transformers import AutoModelForSequenceClassification as Classifier

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier.from_config(
            config, dtype=torch.float32, trust_remote_code=spec.trust_remote_code
        )


def _random(spec: ModelSpec, options: dict[str, Any], drawn: Path | None) -> PreTrainedModel:
    """Return the model with random weights.

    bitsandbytes quantises only while loading, so quantised weights are read from a file.
    """
    from transformers import AutoModelForSequenceClassification as Classifier

    if "quantization_config" not in options:
        return _draw(options["config"], spec)
    with tempfile.TemporaryDirectory() as temporary:
        if drawn is None:
            _draw(options["config"], spec).save_pretrained(temporary)
        return Classifier.from_pretrained(drawn or temporary, **options)


def _from_pretrained(spec: ModelSpec, options: dict[str, Any]) -> tuple[PreTrainedModel, set[str]]:
    """Load pretrained weights, only from safetensors.

    If a hub model has none, the hub is kept from opening a conversion request in the user's name.
    """
    from transformers import AutoModelForSequenceClassification as Classifier

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        model, info = Classifier.from_pretrained(
            folder_or_id(spec.source),
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            revision=spec.revision or "main",
            **options,
        )
    except Exception as error:
        raise loading_error(spec, error) from None
    return model, set(info["missing_keys"])


def _untrained_poolers(model: nn.Module) -> set[str]:
    """Return the parameters of poolers whose bias is all zero.

    Training would have changed the bias, so these weights are still the initial random ones.
    Sentence encoders average their tokens and have such an unused pooler (all-MiniLM-L6-v2, for
    example).
    """
    idle = [name for name, pooler in _poolers(model).items() if not pooler.bias.any()]
    return {f"{name}.{part}" for name in idle for part in ("weight", "bias")}


def _reinitialise(model: PreTrainedModel, modules: tuple[str, ...], *, but: set[str]) -> None:
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
            nn.init.zeros_(module.bias)


def _nf4_options(config: Any, spec: ModelSpec, compute: torch.dtype, device: str) -> dict[str, Any]:
    """Return the options for 4-bit NormalFloat with double quantisation, for the encoder alone.

    QLoRA, Dettmers et al. 2023. transformers 5 would also quantise the head and the pooler; LoRA's
    copies of them could then not be trained.
    """
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    with torch.device("meta"):
        skeleton = AutoModelForSequenceClassification.from_config(
            config, trust_remote_code=spec.trust_remote_code
        )
    kept = [*top_modules(skeleton), f"{skeleton.base_model_prefix}.pooler"]
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )
    return {"quantization_config": quantized, "device_map": {"": device}}


def _disable_repacking(model: nn.Module) -> None:
    """Prevent bitsandbytes from repacking the weights.

    On CPUs with AVX512-BF16 it repacks them in evaluation mode and never back, but frozen weights
    must not change.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # setattr, since the type of nn.Module hides plain attributes
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def _head_modules(model: PreTrainedModel, fresh: set[str], spec: ModelSpec) -> tuple[str, ...]:
    """Return the classifier's own modules, and a pooler without trained weights.

    Freezing a randomly initialised pooler is a known mistake.
    """
    head = top_modules(model)
    untrained = {name for name in fresh if not in_modules(name, head)}
    poolers = {name.rsplit(".", 1)[0] for name in untrained if ".pooler." in name}
    absent = sorted(name for name in untrained if not in_modules(name, tuple(poolers)))
    if absent:
        raise ModelError(
            f"{spec.source!r} lacks {len(absent)} tensors of its encoder (the first is "
            f"{absent[0]}); its weights do not match its config. Fix one of them, or set "
            f"model.source to another model.",
            setting="model.source",
        )
    return (*head, *sorted(poolers))


def is_4bit(parameter: Any) -> bool:
    """Whether bitsandbytes stores this parameter in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


def values_of(parameter: nn.Parameter) -> torch.Tensor:
    """Return the parameter's values, dequantised if it is stored in 4 bits."""
    if not is_4bit(parameter):
        return parameter.detach()
    import bitsandbytes.functional as bnb

    state: Any = parameter.quant_state  # type: ignore[attr-defined]
    return bnb.dequantize_4bit(parameter.detach(), state)


def size_of(parameter: nn.Parameter) -> int:
    """Return the parameter's number of weights.

    A 4-bit parameter stores two per byte, so its `numel` is half the number.
    """
    if is_4bit(parameter):
        return parameter.quant_state.shape.numel()  # type: ignore[attr-defined]
    return parameter.numel()


def bytes_of(parameter: nn.Parameter) -> memoryview:
    """Return the parameter's values as bytes on the host."""
    return values_of(parameter).contiguous().cpu().view(torch.uint8).numpy().data


def digest(parameter: nn.Parameter) -> str:
    """Return the sha256 of the parameter's values."""
    return hashlib.sha256(bytes_of(parameter)).hexdigest()


def _weights_digest(model: PreTrainedModel, head: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not in_modules(name, head):
            total.update(f"{name}:{digest(parameter)}".encode())
    return total.hexdigest()
