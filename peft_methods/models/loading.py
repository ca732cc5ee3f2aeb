"""A recipe's model with the head of its task, with its tokenizer and its architecture.

The weights are pretrained, pretrained in 4 or 8 bits, or random according to a config.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from peft_methods.models.architecture import Architecture, architecture_of
from peft_methods.models.attention_registry import attention_options
from peft_methods.models.config import (
    Quantization,
    config_digest,
    folder_or_id,
    load_config,
    loading_error,
)
from peft_methods.models.drawing import DrawInParallel, round_to_bfloat16
from peft_methods.models.four_bit_scales import read_scales_in_order
from peft_methods.models.half_precision import with_masks_of_scores
from peft_methods.models.head import (
    head_modules,
    name_labels,
    pooler_modules,
    reinitialise,
    untrained_poolers,
)
from peft_methods.models.linear_layers import count_model
from peft_methods.models.model_head import ModelHead
from peft_methods.models.module_names import in_modules, top_modules
from peft_methods.models.padding import embedding_rows, write_padding
from peft_methods.models.parameters import weights_digest
from peft_methods.models.quantization import disable_repacking, quantization_options
from peft_methods.models.stored_weights import poolers_untrained_in, stored_tensors
from peft_methods.models.tokenizer import fetch_tokenizer, tokenizer_digest
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError
from peft_methods.utils.files import path_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


NO_END = (
    "the tokenizer has no end-of-sequence token: no completion ends with one, so the model is not "
    "taught to stop"
)
# Model types whose position ids start after the padding token's id.
COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Of random weights, which follow from their seed, a sample tells as much as all: hashing seven
# billion takes 20 s each time.
DRAWN_DIGEST = 2**14
META = "meta"  # torch's device for tensors that have a size, but no memory


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model before any method is applied.

    `head` names the modules without pretrained weights, which are always trained. `weights_sha256`
    covers the encoder's parameters in order, so it identifies the weights wherever they are stored;
    of random weights it covers the first numbers of each parameter.
    `config_sha256` covers the fields that decide how they are used: activations, dropout, sizes.
    `tokenizer_sha256` covers what turns texts into ids. `notes` are remarks for the user.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    architecture: Architecture
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str
    notes: tuple[str, ...] = ()

    @property
    def longest(self) -> int | None:
        """The number of tokens that the model has positions for, or None without a limit."""
        config = self.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return None if limit is None else limit - first_position(config)

    def check_length(self, max_length: int) -> None:
        """Raise `ModelError` if rows can be longer than the model's position embeddings."""
        limit = self.longest
        if limit is not None and max_length > limit:
            raise ModelError(
                f"data.max_length = {max_length}, but this model reads at most {limit} tokens. "
                f"Set data.max_length = {limit} or less.",
                setting="data.max_length",
            )

    def check_ids(self, rows: Iterable[NDArray[np.int64]]) -> None:
        """Raise `ModelError` if a row of token ids has one that the model has no embedding for."""
        limit = embedding_rows(self.model.config)
        highest = max((int(row.max()) for row in rows if len(row)), default=0)
        if limit and highest >= limit:
            raise ModelError(
                f"a text has the token {self.tokenizer.convert_ids_to_tokens(highest)!r} (id "
                f"{highest:,}), but the model has embeddings for {limit:,} tokens. Remove it from "
                f"the texts, or set model.source to another model.",
                setting="model.source",
            )


def first_position(config: Any) -> int:
    """Return the position id of a row's first token."""
    text = config.get_text_config()
    return text.pad_token_id + 1 if text.model_type in COUNT_FROM_PADDING else 0


def load(
    spec: ModelSpec,
    head: ModelHead,
    label_names: tuple[str, ...],
    *,
    quantization: Quantization | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    is_sharded: bool = False,
) -> LoadedModel:
    """Load a recipe's model, in fp32 or with the encoder's linear layers quantized.

    Raises `ModelError`. Random weights need no download: the config is that of a preset or a local
    one, and so is the tokenizer. `is_sharded`: the model will be divided among several GPUs. On the
    device "meta" the model has modules and sizes, but no weights: nothing is read or drawn, and
    `weights_sha256` is empty.
    """
    config = load_config(spec, head)
    tokenizer, notes = fetch_tokenizer(spec, config)
    if head.pretrained and tokenizer.eos_token_id is None:
        notes = (*notes, NO_END)
    config_sha256 = config_digest(config)
    name_labels(config, label_names, head.problem_type)
    options = {}
    if quantization is not None:
        compute = DTYPES[precision]
        options = quantization_options(
            quantization,
            config,
            spec,
            head,
            compute=compute,
            device=device,
            is_sharded=is_sharded,
        )
    model, fresh = _load_model(config, spec, head, options, device=device)
    write_padding(tokenizer, model.config)
    own = head_modules(model, fresh, spec, head)
    pooler = any(not in_modules(f"{name}.weight", own) for name in pooler_modules(model))
    size = sum(p.numel() for name, p in model.named_parameters() if in_modules(name, own))
    architecture = architecture_of(
        config,
        head_parameters=size,
        pooler=pooler,
        counted=count_model(model, own),
        writes=head.pretrained,
    )
    per_tensor = DRAWN_DIGEST if spec.weights == "random" else None
    return LoadedModel(
        model,
        tokenizer,
        own,
        architecture,
        "" if device == META else weights_digest(model, own, per_tensor=per_tensor),
        config_sha256,
        tokenizer_digest(tokenizer),
        notes,
    )


def _load_model(
    config: Any,
    spec: ModelSpec,
    head: ModelHead,
    quantized: dict[str, Any],
    *,
    device: str,
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model and the names of the parameters without trained weights.

    The model is in fp32, or quantized with the options `quantized`. Random weights
    count as trained, except for a pooler that the real weights leave untrained: the head has the
    same parameters as in the real model.
    """
    options: dict[str, Any] = {
        "config": config,
        "dtype": torch.float32,
        "trust_remote_code": spec.trust_remote_code,
        **attention_options(config),
        **quantized,
    }
    missing: set[str] = set()
    if device == META:
        model = _without_weights(spec, head, options)
        return model, poolers_untrained_in(folder_or_id(spec.source), pooler_modules(model))
    if spec.weights == "random":
        model = _random(spec, head, options)
        idle = poolers_untrained_in(folder_or_id(spec.source), pooler_modules(model))
    else:
        model, missing = _from_pretrained(spec, head, options)
        idle = untrained_poolers(model)
    with_masks_of_scores(model)
    fresh = missing | idle
    new = () if head.pretrained else top_modules(model)
    reinitialise(model, (*new, *(name.rpartition(".")[0] for name in fresh)), but=missing)
    if quantized:
        disable_repacking(model)
        if device == "cpu":
            read_scales_in_order()
        return model, fresh  # already on its device
    return model.to(device), fresh


def with_drawn_weights(
    base: LoadedModel, spec: ModelSpec, head: ModelHead, device: str
) -> LoadedModel:
    """Return the model with random weights instead of its own, to time what it computes."""
    model: Any = _draw(base.model.config, spec, head)
    return replace(base, model=model.to(device))


def _without_weights(spec: ModelSpec, head: ModelHead, options: dict[str, Any]) -> PreTrainedModel:
    """Build the model on the meta device. Raises `ModelError` for a folder without weights."""
    folder = path_of(folder_or_id(spec.source))
    if spec.weights == "pretrained" and folder is not None and not stored_tensors(folder):
        raise loading_error(spec, OSError("it has no weights in *.safetensors that can be read."))
    with torch.device(META):
        model: PreTrainedModel = head.auto_class().from_config(**options)
    return model


def _draw(config: Any, spec: ModelSpec, head: ModelHead) -> PreTrainedModel:
    """Draw random weights, the same base model for all seeds, as with pretrained weights.

    They are rounded to bfloat16, in which most weights are published: training in half precision
    then need not keep the frozen weights in 32 bits too.
    """
    with torch.random.fork_rng(devices=()), DrawInParallel():
        torch.manual_seed(0)
        model: PreTrainedModel = head.auto_class().from_config(
            config,
            dtype=torch.float32,
            trust_remote_code=spec.trust_remote_code,
            **attention_options(config),
        )
    round_to_bfloat16(model)
    return model


def _random(spec: ModelSpec, head: ModelHead, options: dict[str, Any]) -> PreTrainedModel:
    """Return the model with random weights. bitsandbytes quantises only while loading."""
    drawn = _draw(options["config"], spec, head)
    if "quantization_config" not in options:
        return drawn
    model: PreTrainedModel = type(drawn).from_pretrained(
        None, state_dict=drawn.state_dict(), **options
    )
    return model


def _from_pretrained(
    spec: ModelSpec, head: ModelHead, options: dict[str, Any]
) -> tuple[PreTrainedModel, set[str]]:
    """Load pretrained weights, only from safetensors.

    If a hub model has none, the hub is kept from opening a conversion request in the user's name.
    """
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        model, info = head.auto_class().from_pretrained(
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
