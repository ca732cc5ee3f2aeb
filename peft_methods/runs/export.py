"""Save trained models in the format of their method, and load them again.

- `transformers`: a whole model folder (full fine-tuning, BitFit, head only).
- `peft`: a PEFT folder (LoRA, IA3, OFT), with a config.json for the names of the labels, if any.
- `peft_methods`: `trained.safetensors` (adapters, fusion).

Every folder also has the tokenizer, a `method.json` that records the base model with its
quantisation, and a README.md with the calls that load the model that was measured:
`peft_methods.load_trained(folder)` for all of them. The `AutoModel` classes and `pipeline()` of
transformers do so for the first format alone; the others they refuse or, in some versions, load
with a new, random head.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peft_methods.methods.base import TRAINED, ApplyContext, Method
from peft_methods.models import loading, ranks
from peft_methods.models.attention_registry import attention_options
from peft_methods.models.half_precision import with_masks_of_scores
from peft_methods.models.parameters import load_trainable, on_first_host, trainable_tensors
from peft_methods.models.stored_weights import require_all
from peft_methods.recipes.schema import ModelSpec
from peft_methods.runs.description import (
    DESCRIPTION,
    base_spec_of,
    describe,
    method_of,
    read_description,
    task_of,
)
from peft_methods.runs.model_card import model_card
from peft_methods.runs.saved_adapter import PEFT_CONFIG, load_peft
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import ModelError, first_line

CARD = "README.md"
# Methods train no embeddings. PEFT would ask the hub about them, and wait without a network.
PEFT_SAVING: Mapping[str, Any] = {"save_embedding_layers": False}


def whole_state(model: nn.Module, method: Method) -> dict[str, Any]:
    """Return the tensors to save of a model that is divided among ranks, on the host of rank 0.

    Empty for other models. PEFT saves what is trained alone.
    """
    if not ranks.is_sharded(model):
        return {}
    if method.info.saved_format == "peft_methods":
        return on_first_host(method.saved_parameters(model))
    if method.info.saved_format == "peft":
        return trainable_tensors(model)
    return on_first_host(model.state_dict())


def save_trained(
    model: nn.Module,
    run: RunSpec,
    base: loading.LoadedModel,
    folder: Path,
    state: Mapping[str, Any] | None = None,
    *,
    data_sha256: str = "",
) -> None:
    """Save the model in its method's format, with its tokenizer and its description.

    `state` has the tensors of a model that is divided among ranks, and `data_sha256` is the
    fingerprint of the run's rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if run.method.info.saved_format == "peft_methods":
        _save_parameters(state or run.method.saved_parameters(model), folder / TRAINED)
    else:
        options = PEFT_SAVING if run.method.info.saved_format == "peft" else {}
        given = {"state_dict": state} if state else {}
        # transformers' and PEFT's models have this method
        model.save_pretrained(str(folder), **options, **given)  # type: ignore[operator]
    save_other_files(run, base, folder, data_sha256)


def save_other_files(
    run: RunSpec,
    base: loading.LoadedModel,
    folder: Path,
    data_sha256: str = "",
    converted: Method | None = None,
) -> None:
    """Save tokenizer, description and README beside the weights, and finish PEFT's configs.

    See `describe` for `data_sha256` and `converted`.
    """
    base.tokenizer.save_pretrained(str(folder))
    description = describe(run, base, data_sha256=data_sha256, converted=converted)
    head = TASKS[run.recipe.task].head
    if description["format"] == "peft":
        if not head.pretrained:  # with a config.json, transformers would not see PEFT's folder
            _save_plain_config(base, folder)
        _name_base(folder / PEFT_CONFIG, description["model"]["source"])
    card = model_card(converted or run.method, description, head, TASKS[run.recipe.task].usage)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def _save_parameters(saved: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: p.detach().cpu().contiguous() for name, p in saved.items()}, path)


def _save_plain_config(base: loading.LoadedModel, folder: Path) -> None:
    """Save the classifier's config, with the labels.

    With a quantisation in it, transformers would take the weights of the base for quantised ones.
    """
    config: Any = copy.deepcopy(base.model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(str(folder))


def _name_base(path: Path, source: str) -> None:
    """Name the base model in PEFT's config as our description does."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(config | {"base_model_name_or_path": source}, indent=2, sort_keys=True)
    path.write_text(text, encoding="utf-8")


def load_trained(
    folder: str | Path,
    *,
    base: str | Path | None = None,
    merge: bool = False,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load a saved model, ready to predict as it did when it was measured.

    It works for every method: the base model is loaded with its quantisation, then the trained
    weights. `base` is the place of the base model if it has moved. With `merge`, the method's
    weights are folded into the base's: a plain transformers model, whose `save_pretrained` writes
    a folder for `from_pretrained` and `pipeline()`. Those refuse a folder of LoRA, QLoRA, IA3 or
    adapters or, in some versions, load it with a new, random head.

    `trust_remote_code` allows the base model's own Python files to run, if it was trained with
    them. Raises `ModelError` if the folder holds no such model.
    """
    folder = Path(folder)
    saved = read_description(folder)
    method, task = method_of(saved, folder), task_of(saved, folder)
    spec = base_spec_of(saved, folder)
    if base is not None:
        spec = replace(spec, source=str(base))
    saved_format = saved.get("format", "peft_methods")  # all that version 0.1 described
    with _explained():
        refuse_code(spec, folder, is_trusted=trust_remote_code)
        if saved_format == "transformers":
            return _load_plain(folder, task, spec).to(device).eval()
        loaded = load_base(saved, spec, method, folder, device=device)
    if saved_format == "peft":
        model = load_peft(loaded, method, folder)
    else:
        model = _load_own(loaded, method, task, folder)
    return (_merged(model, method, folder) if merge else model).eval()


@contextmanager
def _explained() -> Iterator[None]:
    """Context manager: errors name the argument of `load_trained` that changes their setting."""
    arguments = {
        "model.source": "base=FOLDER, its folder or hub id",
        "trust_remote_code": "trust_remote_code=True",
    }
    try:
        yield
    except ModelError as error:
        if error.setting not in arguments:
            raise
        raise ModelError(f"{error} Change it with {arguments[error.setting]}.") from None


def refuse_code(spec: ModelSpec, folder: Path, *, is_trusted: bool) -> None:
    """Raise `ModelError` if the base model has Python code, unless the user trusts it."""
    if spec.trust_remote_code and not is_trusted:
        raise ModelError(
            f"{folder}: its base model runs Python code from its repository. Read that code before "
            f"you allow it.",
            setting="trust_remote_code",
        )


def _load_plain(folder: Path, task: Task, spec: ModelSpec) -> nn.Module:
    from transformers import AutoConfig

    try:
        options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
        options |= attention_options(AutoConfig.from_pretrained(folder, **options))
        options |= {"use_safetensors": True, "output_loading_info": True}
        model, info = task.head.auto_class().from_pretrained(str(folder), **options)
    except Exception as error:  # file errors have a dozen types
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from None
    require_all(info["missing_keys"], folder)
    return with_masks_of_scores(model)


def load_base(
    saved: Mapping[str, Any], spec: ModelSpec, method: Method, folder: Path, *, device: str
) -> loading.LoadedModel:
    """Load the base model as for training. Raises `ModelError` if its weights are other ones.

    The error's setting is then `model.source`.

    4-bit weights are not compared: devices may round them differently.
    """
    try:
        loaded = loading.load(
            spec,
            task_of(saved, folder).head,
            tuple(saved["label_names"]),
            quantization=method.info.quantization,
            precision=saved.get("precision", "fp32"),
            device=device,
        )
    except ModelError as error:
        raise ModelError(
            f"{folder}: its base model cannot be loaded: {error}", setting=error.setting
        ) from None
    expected = saved.get("weights_sha256", loaded.weights_sha256)
    if method.info.quantization is None and loaded.weights_sha256 != expected:
        raise ModelError(
            f"{folder} was trained on another base model than {spec.source!r} is now: the weights "
            f"differ. Set model.source to the model of then.",
            setting="model.source",
        )
    return loaded


def _load_own(loaded: loading.LoadedModel, method: Method, task: Task, folder: Path) -> nn.Module:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / TRAINED, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no model saved by peft_methods: {first_line(error)}"
        ) from None
    context = ApplyContext(loaded.architecture, loaded.head, task.peft_type)
    model = method.apply(loaded.model, context)
    wanted = {name for name, one in model.named_parameters() if one.requires_grad}
    require_all(wanted - names, folder / TRAINED)
    load_trainable(model, folder / TRAINED)
    return model


def _merged(model: nn.Module, method: Method, folder: Path) -> nn.Module:
    merged = method.merge(model)
    if merged is None:
        raise ModelError(
            f"{folder}: {method.title} cannot be merged into its base model. Load it without "
            f"merge=True."
        )
    return merged
