"""Recipe -> sequence classifier (pretrained, 4-bit, or random weights from a config), its tokenizer and its shape."""

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
    local_or_hub,
    padding_of,
)
from peft_methods.errors import ModelError
from peft_methods.layouts import ModelShape, shape_of
from peft_methods.recipe import ModelSpec
from peft_methods.rows import tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


COUNT_FROM_PADDING = (
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
)  # their positions start behind the padding token
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Base:
    """A loaded classifier before any method touched it.

    `head` names the modules that hold no pretrained weights (always trained); `weights_sha256` is that of the
    encoder's parameters in order, which identifies the weights wherever they came from. `config_sha256` is that of
    their use: activations, dropout, sizes; `tokenizer_sha256` that of what turns texts into ids.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    shape: ModelShape
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str

    def check_length(self, max_length: int) -> None:
        """Raise `ModelError` for more tokens than the model has positions for."""
        config = self.model.config
        taken = config.pad_token_id + 1 if config.model_type in COUNT_FROM_PADDING else 0
        most = getattr(config, "max_position_embeddings", max_length + taken) - taken
        if max_length > most:
            raise ModelError(
                f"data.max_length = {max_length}, but this model reads {most} tokens at most: --peft-set data.max_length={most}"
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
    """The classifier a recipe names, in fp32, or with its encoder's linear maps in 4 bits. Raises `ModelError`.

    With random weights nothing is fetched: the config is a shape's or a local one, and so is the tokenizer. To quantise
    them they are read from a file: `drawn`, where `save_drawn` left them, or one of this call's own.
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
    """The model's own; where a shape comes without one, one for ids written as numbers. Raises `ModelError`."""
    return _load_tokenizer(spec, load_config(spec))


def save_drawn(spec: ModelSpec, label_names: tuple[str, ...], folder: Path) -> None:
    """Draw the random weights of a classifier and leave them in a folder, for `load` to quantise. Raises `ModelError`."""
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
    """Whether a parameter lies within one of these modules, also where PEFT put its name behind a prefix."""
    return any(f".{module}." in f".{parameter}" for module in modules)


def top_modules(model: nn.Module) -> tuple[str, ...]:
    """The classifier's own modules beside the encoder: those that hold parameters."""
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
        raise local_or_hub(spec, error) from None


def _load_model(
    config: Any, spec: ModelSpec, compute: torch.dtype | None, device: str, drawn: Path | None
) -> tuple[PreTrainedModel, set[str]]:
    """The model in fp32 (in 4 bits where `compute` gives the dtype to compute in) and the parameters without trained weights.

    Random weights count as trained: which parameters belong to the head is as in the real model.
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
        idle = _never_trained(model)
    fresh = missing | idle
    _start_anew(
        model, (*top_modules(model), *(name.rpartition(".")[0] for name in fresh)), but=missing
    )
    if compute is not None:
        _keep_4bit_weights_as_they_are(model)
        return model, fresh  # already where it belongs
    return model.to(device), fresh


def _draw(config: Any, spec: ModelSpec) -> PreTrainedModel:
    """One encoder for all seeds, as with pretrained weights."""
    from transformers import AutoModelForSequenceClassification as Classifier

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier.from_config(
            config, dtype=torch.float32, trust_remote_code=spec.trust_remote_code
        )


def _random(spec: ModelSpec, options: dict[str, Any], drawn: Path | None) -> PreTrainedModel:
    """As drawn, or quantised by bitsandbytes, which does that while loading from a file."""
    from transformers import AutoModelForSequenceClassification as Classifier

    if "quantization_config" not in options:
        return _draw(options["config"], spec)
    with tempfile.TemporaryDirectory() as own:
        if drawn is None:
            _draw(options["config"], spec).save_pretrained(own)
        return Classifier.from_pretrained(drawn or own, **options)


def _from_pretrained(spec: ModelSpec, options: dict[str, Any]) -> tuple[PreTrainedModel, set[str]]:
    """Only from safetensors. Where a hub model has none, its maker is not asked for any by a bot in our user's name."""
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
        raise local_or_hub(spec, error) from None
    return model, set(info["missing_keys"])


def _never_trained(model: nn.Module) -> set[str]:
    """The parameters of a pooler whose bias is zero throughout: no training leaves it so, it holds its first random draw.

    Sentence encoders average their tokens and carry such a pooler along (all-MiniLM-L6-v2 does).
    """
    idle = [name for name, pooler in _poolers(model).items() if not pooler.bias.any()]
    return {f"{name}.{part}" for name in idle for part in ("weight", "bias")}


def _start_anew(model: PreTrainedModel, modules: tuple[str, ...], *, but: set[str]) -> None:
    """Draw the linear maps within these modules again, for each seed its own, `but` those just drawn.

    A checkpoint of a finished classifier brings its head along; here every method starts with a new one.
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
    """4-bit NormalFloat with double quantisation (QLoRA, Dettmers et al. 2023) for the encoder alone.

    transformers 5 would quantise the head and the pooler too; LoRA's copies of them could then not be trained.
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


def _keep_4bit_weights_as_they_are(model: nn.Module) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks weights in evaluation and never back: frozen must stay frozen."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # a plain attribute that nn.Module's type hides


def _head_modules(model: PreTrainedModel, fresh: set[str], spec: ModelSpec) -> tuple[str, ...]:
    """The classifier's own modules, and a pooler without trained weights (freezing noise is a known mistake)."""
    head = top_modules(model)
    stray = {name for name in fresh if not in_modules(name, head)}
    poolers = {name.rsplit(".", 1)[0] for name in stray if ".pooler." in name}
    unfit = sorted(name for name in stray if not in_modules(name, tuple(poolers)))
    if unfit:
        raise ModelError(
            f"{spec.source!r} lacks {len(unfit)} tensors of its encoder (the first is {unfit[0]}); its weights do not fit its config."
        )
    return (*head, *sorted(poolers))


def is_4bit(parameter: Any) -> bool:
    """Whether bitsandbytes holds this parameter in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


def values_of(parameter: nn.Parameter) -> torch.Tensor:
    """The parameter's values; those of a 4-bit one dequantised."""
    if not is_4bit(parameter):
        return parameter.detach()
    import bitsandbytes.functional as bnb

    state: Any = parameter.quant_state  # type: ignore[attr-defined]
    return bnb.dequantize_4bit(parameter.detach(), state)


def size_of(parameter: nn.Parameter) -> int:
    """Its number of weights; a 4-bit parameter stores two a byte, so its own `numel` is half."""
    return parameter.quant_state.shape.numel() if is_4bit(parameter) else parameter.numel()  # type: ignore[attr-defined]


def bytes_of(parameter: nn.Parameter) -> memoryview:
    """The parameter's values, on the host, bit by bit."""
    return values_of(parameter).contiguous().cpu().view(torch.uint8).numpy().data


def digest(parameter: nn.Parameter) -> str:
    """sha256 of the parameter's values."""
    return hashlib.sha256(bytes_of(parameter)).hexdigest()


def _weights_digest(model: PreTrainedModel, head: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not in_modules(name, head):
            whole.update(f"{name}:{digest(parameter)}".encode())
    return whole.hexdigest()
