"""Location and config of a model: of a pretrained one, a local one, or an architecture preset."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import re
import warnings
from pathlib import Path
from typing import Any, Literal

from peft_methods.models import bundled, presets
from peft_methods.models.families import DECODER_TYPES, is_named_like_a_decoder
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError, first_line, nearest
from peft_methods.utils.files import is_only_a_path, path_of

ModelKind = Literal["small_encoder", "encoder", "decoder"]
# Formats of frozen weights. All but the last are bitsandbytes'.
Quantization = Literal["nf4", "fp4", "int8", "torchao_int8"]
LARGEST_SMALL = 512  # hidden size; base encoders have 768
SMALL_NAMES = re.compile(r"tiny|mini|small")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
IRRELEVANT_FIELDS = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
)


def folder_or_id(source: str) -> str:
    """Return the folder of a local or bundled model, else the source itself: a hub id."""
    if source.startswith(PREFIX):
        return str(bundled.model_folder(source))
    folder = path_of(source)
    return str(folder) if folder is not None and folder.is_dir() else source


def loading_error(spec: ModelSpec, error: Exception) -> ModelError:
    """Return the error for a pretrained model that could not be loaded."""
    if _needs_custom_code(error):
        return _custom_code_error(spec)
    if pickles := _pickled_weights(spec):
        return ModelError(
            f"the model folder {spec.source!r} holds its weights as {pickles}, a pickle, which can "
            f"execute any code when it is read; only safetensors are read. If you trust it, "
            f'convert it once: python -c "from transformers import AutoModel as M; '
            f'M.from_pretrained({spec.source!r}).save_pretrained({spec.source!r})"'
        )
    folder = path_of(folder_or_id(spec.source))
    if folder is not None and folder.is_dir():
        return ModelError(
            f"the model folder {spec.source!r} cannot be loaded: {first_line(error)} Set "
            f"model.source to a folder that holds config.json, model.safetensors and the "
            f"tokenizer's files.",
            setting="model.source",
        )
    if folder is None and is_only_a_path(spec.source):
        return ModelError(
            f"there is no folder {spec.source}. Set model.source to one that holds config.json, "
            f"model.safetensors and the tokenizer's files.",
            setting="model.source",
        )
    return ModelError(
        f"{spec.source!r} is not a local folder and could not be loaded from the hub "
        f"({first_line(error)}). Check the name and the network, or set model.source to a local "
        f"folder.",
        setting="model.source",
    )


def _needs_custom_code(error: Exception) -> bool:
    return "trust_remote_code" in str(error)


def _custom_code_error(spec: ModelSpec) -> ModelError:
    return ModelError(
        f"the model {spec.source!r} needs its own Python code, which is not executed. Use a model "
        f"that is part of transformers; or read that code, set model.trust_remote_code = true and "
        f"allow it with trust_remote_code = true.",
        setting="trust_remote_code",
    )


def _pickled_weights(spec: ModelSpec) -> str:
    """Return the pickled weights file of a local folder without safetensors, else an empty text."""
    folder = path_of(folder_or_id(spec.source))
    if folder is None or any(folder.glob("*.safetensors")):
        return ""
    return next((path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))), "")


def has_tokenizer(spec: ModelSpec) -> bool:
    """Whether the model comes with a tokenizer.

    Pretrained weights do; an architecture preset or a config alone does not.
    """
    return spec.weights == "pretrained" or presets.has_vocabulary(folder_or_id(spec.source))


def padding_of(config: Any) -> int:
    """Return the id of the padding token, 0 for a model without one."""
    return getattr(config.get_text_config(), "pad_token_id", None) or 0


def config_digest(config: Any) -> str:
    """Return the sha256 of the config fields that affect the model: dropout, activation, sizes.

    Its name, its labels and the library version that wrote it are left out.
    """
    values = json.loads(config.to_json_string(use_diff=False))
    relevant = {name: value for name, value in values.items() if name not in IRRELEVANT_FIELDS}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def load_config(spec: ModelSpec, head: ModelHead) -> Any:
    """Return the transformers config of a model that can carry this head. Raises `ModelError`."""
    if files := _gguf_files(spec.source):
        raise ModelError(
            f"{spec.source!r} is a model in GGUF format ({files[0]}), which is for inference and "
            f"is not read. Set model.source to the folder or hub id of the original model, with "
            f"config.json and model.safetensors.",
            setting="model.source",
        )
    config = _pretrained_config(spec) if spec.weights == "pretrained" else _local_config(spec)
    if not head.fits(config) and not (spec.trust_remote_code and head.is_custom(config)):
        raise ModelError(
            f"{spec.source!r} is {head.misfit(config)}. Set model.source to {head.examples}.",
            setting="model.source",
        )
    _import_model_code(config)
    if spec.weights == "random":
        _check_builds(config, spec, head)
    return config


def _gguf_files(source: str) -> list[str]:
    """Return the names of GGUF files where the model should be: a file, or a folder without others.

    A hub repository for such files has GGUF in its name.
    """
    path = path_of(source)
    if path is None:
        name = source.rpartition("/")[2]
        return [name] if "gguf" in re.split(r"[-_.]", name.casefold()) else []
    if path.is_file():
        return [path.name] if path.suffix.casefold() == ".gguf" else []
    if any(path.glob("*.safetensors")):
        return []
    return sorted(one.name for one in path.glob("*") if one.suffix.casefold() == ".gguf")


def _import_model_code(config: Any) -> None:
    """Import transformers' code of this model type without its warnings.

    DeBERTa's uses a deprecated function of torch, which is no concern of whoever makes warnings
    errors. A type without such a module is reported where the model is built.
    """
    module = type(config).__module__
    if module.startswith("transformers.models."):
        with warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.simplefilter("ignore", DeprecationWarning)
            importlib.import_module(module.replace(".configuration_", ".modeling_"))


def _check_builds(config: Any, spec: ModelSpec, head: ModelHead) -> None:
    """Build the model on the meta device.

    It takes no memory, so a failure is caused by the config and never by the machine.
    """
    import torch

    try:
        with torch.device("meta"):
            head.auto_class().from_config(config, trust_remote_code=spec.trust_remote_code)
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
    except Exception as error:  # hub and file errors have a dozen types
        raise loading_error(spec, error) from None


def _local_config(spec: ModelSpec) -> Any:
    """Return a local config or that of an architecture preset, without access to the hub."""
    from transformers import AutoConfig

    folder = path_of(folder_or_id(spec.source))
    if folder is None:
        known = presets.presets()
        if spec.source not in known:
            raise ModelError(
                f"random weights need a model's sizes, but {spec.source!r} is neither a local "
                f"folder or file nor an architecture preset.{nearest(spec.source, known)} Presets: "
                f"{', '.join(presets.shape_names())}. Set model.source to one of them, to a folder "
                f"with config.json, or to the path of that file.",
                setting="model.source",
            )
        return AutoConfig.for_model(**known[spec.source])
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # bad fields raise special types or whatever fails first
        raise (
            _custom_code_error(spec) if _needs_custom_code(error) else _bad_config(spec, error)
        ) from None


def _bad_config(spec: ModelSpec, error: Exception) -> ModelError:
    return ModelError(
        f"{spec.source!r} does not describe a model ({first_line(error)}). Fix its config.json, "
        f"or set model.source to an architecture preset ({', '.join(presets.shape_names())}).",
        setting="model.source",
    )


def kind_of(spec: ModelSpec) -> ModelKind:
    """The kind of a model, which default learning rates depend on.

    A local config.json or a preset decides; otherwise the name does. Neither the hub nor its cache
    is asked, so the kind is the same on every machine.
    """
    if spec.source.removeprefix(PREFIX) in bundled.DECODERS and spec.source.startswith(PREFIX):
        return "decoder"
    config = _config_dict(spec.source) or presets.presets().get(spec.source)
    if config is None:
        name = spec.source.rpartition("/")[2].casefold()
        if is_named_like_a_decoder(name):
            return "decoder"
        return "small_encoder" if SMALL_NAMES.search(name) else "encoder"
    classes = config.get("architectures") or [""]
    if str(classes[0]).endswith("ForCausalLM") or config.get("model_type") in DECODER_TYPES:
        return "decoder"
    hidden = config.get("hidden_size", config.get("dim"))
    small = isinstance(hidden, int) and hidden <= LARGEST_SMALL
    return "small_encoder" if small else "encoder"


def _config_dict(source: str) -> dict[str, Any] | None:
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
