"""Where a model lies, and its config: a pretrained model's, a local one, or a shape's."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from peft_methods import embedded, shapes
from peft_methods.errors import ModelError, first_line, nearest
from peft_methods.recipe import ModelSpec, is_meant_as_path, path_of

ModelKind = Literal["small_encoder", "encoder", "decoder"]
LARGEST_SMALL = 512  # hidden size; base encoders have 768
SMALL_NAMES = re.compile(r"tiny|mini|small")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NOT_THE_MODEL = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
)


def folder_or_id(source: str) -> str:
    """The folder of a local or embedded model, else the source itself: a hub id."""
    if source.startswith(embedded.PREFIX):
        return str(embedded.model_folder(source))
    folder = path_of(source)
    return str(folder) if folder is not None and folder.is_dir() else source


def local_or_hub(spec: ModelSpec, error: Exception) -> ModelError:
    """What to say of a pretrained model that could not be had."""
    if _wants_own_code(error):
        return _own_code(spec)
    if pickles := _pickles_alone(spec):
        return ModelError(
            f"the model folder {spec.source!r} holds its weights as {pickles}, a pickle, which can run any code when it is read; only "
            f'safetensors are. If you trust it, convert it once: python -c "from transformers import AutoModel as M; '
            f'M.from_pretrained({spec.source!r}).save_pretrained({spec.source!r})"'
        )
    folder = path_of(folder_or_id(spec.source))
    if folder is not None and folder.is_dir():
        return ModelError(
            f"the model folder {spec.source!r} cannot be loaded: {first_line(error)} A model folder holds config.json, "
            f"model.safetensors and the tokenizer's files; give another with --peft-model DIR."
        )
    if folder is None and is_meant_as_path(spec.source):
        return ModelError(
            f"there is no folder {spec.source}. Give one that holds config.json, model.safetensors and the tokenizer's files: "
            f"--peft-model DIR."
        )
    return ModelError(
        f"{spec.source!r} is no folder here and could not be had from the hub ({first_line(error)}). "
        f"Check the name and the network, or give a local folder: --peft-model DIR."
    )


def _wants_own_code(error: Exception) -> bool:
    return "trust_remote_code" in str(error)


def _own_code(spec: ModelSpec) -> ModelError:
    return ModelError(
        f"the model {spec.source!r} needs Python code of its own, which is not run. Use a model that transformers knows; or read that "
        f"code and allow it: --peft-set model.trust_remote_code=true --peft-trust-remote-code."
    )


def _pickles_alone(spec: ModelSpec) -> str:
    """The pickled weights of a local folder that has no others."""
    folder = path_of(folder_or_id(spec.source))
    if folder is None or any(folder.glob("*.safetensors")):
        return ""
    return next((path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))), "")


def has_own_classifier(config: Any, spec: ModelSpec) -> bool:
    """Whether the model brings the code of its classifier along and that code is trusted."""
    return spec.trust_remote_code and "AutoModelForSequenceClassification" in (
        getattr(config, "auto_map", None) or {}
    )


def has_tokenizer(spec: ModelSpec) -> bool:
    """Whether the model comes with a tokenizer: weights do; a shape and a config alone do not."""
    return spec.weights == "pretrained" or shapes.has_vocabulary(folder_or_id(spec.source))


def padding_of(config: Any) -> int:
    """The token id that fills up short rows."""
    return config.pad_token_id or 0


def config_digest(config: Any) -> str:
    """sha256 of what a config says of the model (dropout, activation, sizes); not of its name, its writer and its labels."""
    values = json.loads(config.to_json_string(use_diff=False))
    decisive = {name: value for name, value in values.items() if name not in NOT_THE_MODEL}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def load_config(spec: ModelSpec) -> Any:
    """The transformers config of an encoder that can carry a classifier. Raises `ModelError`."""
    from transformers.models.auto import modeling_auto as auto

    config = _pretrained_config(spec) if spec.weights == "pretrained" else _config_alone(spec)
    kind = config.model_type
    encoder = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    known = encoder and kind in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if not known and not has_own_classifier(config, spec):
        raise ModelError(
            f"{spec.source!r} is a {kind!r} model, which is no encoder to put a classifier on. "
            f"Use an encoder such as BERT, RoBERTa, DistilBERT, MPNet or DeBERTa."
        )
    if spec.weights == "random":
        _check_that_it_builds(config, spec)
    return config


def _check_that_it_builds(config: Any, spec: ModelSpec) -> None:
    """Build the model without memory: what fails here is the config, never the machine."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=spec.trust_remote_code
            )
    except Exception as error:
        raise _bad_config(spec, error) from None


def _pretrained_config(spec: ModelSpec) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            folder_or_id(spec.source),
            revision=spec.revision or "main",
            trust_remote_code=spec.trust_remote_code,
        )
    except Exception as error:  # hub and file errors come in a dozen types
        raise local_or_hub(spec, error) from None


def _config_alone(spec: ModelSpec) -> Any:
    """A local config, or a shape's; the hub is not asked."""
    from transformers import AutoConfig

    folder = path_of(folder_or_id(spec.source))
    if folder is None:
        known = shapes.shapes()
        if spec.source not in known:
            raise ModelError(
                f"random weights need a model's sizes, and {spec.source!r} is no folder or file here and no known shape."
                f"{nearest(spec.source, known)} Shapes: {', '.join(shapes.shape_names())}. "
                f"Or give a folder with config.json, or the path of that file: --peft-model PATH."
            )
        return AutoConfig.for_model(**known[spec.source])
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except (
        Exception
    ) as error:  # a wrong field has a type of its own, others are the first thing that fails
        raise (_own_code(spec) if _wants_own_code(error) else _bad_config(spec, error)) from None


def _bad_config(spec: ModelSpec, error: Exception) -> ModelError:
    return ModelError(
        f"{spec.source!r} does not describe a model ({first_line(error)}). Mend its config.json, "
        f"or use a shape that comes along ({', '.join(shapes.shape_names())}): --peft-model NAME."
    )


def kind_of(spec: ModelSpec) -> ModelKind:
    """The kind of a model, which default learning rates depend on.

    A local config.json or a preset decides; otherwise the name does. Neither the hub nor its cache is
    asked, so the kind is the same on every machine.
    """
    config = _local_config(spec.source) or shapes.shapes().get(spec.source)
    if config is None:
        name = spec.source.rpartition("/")[2].casefold()
        return "small_encoder" if SMALL_NAMES.search(name) else "encoder"
    classes = config.get("architectures") or [""]
    if str(classes[0]).endswith("ForCausalLM"):
        return "decoder"
    hidden = config.get("hidden_size", config.get("dim"))
    small = isinstance(hidden, int) and hidden <= LARGEST_SMALL
    return "small_encoder" if small else "encoder"


def _local_config(source: str) -> dict[str, Any] | None:
    """The config.json of a model folder, or the config file itself; None where there is none."""
    path = path_of(source)
    if path is None:
        return None
    try:
        file = path / "config.json" if path.is_dir() else path
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # loading the model will report it
    return config if isinstance(config, dict) else None
