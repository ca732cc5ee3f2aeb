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
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peft_methods.methods.base import TRAINED, ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading, ranks
from peft_methods.models.attention_registry import attention_options
from peft_methods.models.parameters import load_trainable, on_first_host, trainable_tensors
from peft_methods.recipes.schema import DEFAULT_TASK, ModelSpec
from peft_methods.runs.description import DESCRIPTION, describe, read_description
from peft_methods.runs.model_card import model_card
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import ModelError, first_line
from peft_methods.utils.validation import build

CARD = "README.md"
PEFT_CONFIG = "adapter_config.json"
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
) -> None:
    """Save the model in its method's format, with its tokenizer and its description.

    `state` has the tensors of a model that is divided among ranks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if run.method.info.saved_format == "peft_methods":
        _save_parameters(state or run.method.saved_parameters(model), folder / TRAINED)
    else:
        options = PEFT_SAVING if run.method.info.saved_format == "peft" else {}
        given = {"state_dict": state} if state else {}
        # transformers' and PEFT's models have this method
        model.save_pretrained(str(folder), **options, **given)  # type: ignore[operator]
    save_other_files(run, base, folder)


def save_other_files(
    run: RunSpec, base: loading.LoadedModel, folder: Path, converted_from: str = ""
) -> None:
    """Save tokenizer, description and README beside the weights, and finish PEFT's configs.

    `converted_from` is the title of the method that was trained, if it is another one.
    """
    base.tokenizer.save_pretrained(str(folder))
    description, head = describe(run, base, converted_from), TASKS[run.recipe.task].head
    if description["format"] == "peft":
        if not head.pretrained:  # with a config.json, transformers would not see PEFT's folder
            _save_plain_config(base, folder)
        _name_base(folder / PEFT_CONFIG, description["model"]["source"])
    card = model_card(run.method, description, head, TASKS[run.recipe.task].usage)
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
    method: Method = METHODS.create(saved["method"], saved["settings"], str(folder))
    spec = build(ModelSpec, saved["model"], str(folder))
    if spec.trust_remote_code and not trust_remote_code:
        raise ModelError(
            f"{folder}: its base model runs Python code from its repository. Read that code, then "
            f"load the model with trust_remote_code=True."
        )
    if base is not None:
        spec = replace(spec, source=str(base))
    task = _task_of(saved)
    saved_format = saved.get("format", "peft_methods")  # all that version 0.1 described
    if saved_format == "transformers":
        return _load_plain(folder, task, spec).to(device).eval()
    loaded = load_base(saved, spec, method, folder, device=device)
    if saved_format == "peft":
        model = load_peft(loaded, method, folder)
    else:
        model = _load_own(loaded, method, task, folder)
    return (_merged(model, method, folder) if merge else model).eval()


def _task_of(saved: Mapping[str, Any]) -> Task:
    return TASKS[saved.get("task", DEFAULT_TASK)]


def _load_plain(folder: Path, task: Task, spec: ModelSpec) -> nn.Module:
    from transformers import AutoConfig

    try:
        options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
        options |= attention_options(AutoConfig.from_pretrained(folder, **options))
        model: nn.Module = task.head.auto_class().from_pretrained(
            str(folder), use_safetensors=True, **options
        )
    except Exception as error:  # file errors have a dozen types
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from None
    return model


def load_base(
    saved: Mapping[str, Any], spec: ModelSpec, method: Method, folder: Path, *, device: str
) -> loading.LoadedModel:
    """Load the base model as for training. Raises `ModelError` if its weights are other ones.

    4-bit weights are not compared: devices may round them differently.
    """
    try:
        loaded = loading.load(
            spec,
            _task_of(saved).head,
            tuple(saved["label_names"]),
            quantization=method.info.quantization,
            precision=saved.get("precision", "fp32"),
            device=device,
        )
    except ModelError as error:
        raise ModelError(
            f"{folder}: its base model cannot be loaded: {error} If it has moved, load this folder "
            f"with base=FOLDER, its folder or hub id."
        ) from None
    expected = saved.get("weights_sha256", loaded.weights_sha256)
    if method.info.quantization is None and loaded.weights_sha256 != expected:
        raise ModelError(
            f"{folder} was trained on another base model than {spec.source!r} is now: the weights "
            f"differ. Load it with base=FOLDER, the folder or hub id of the model of then."
        )
    return loaded


def load_peft(loaded: loading.LoadedModel, method: Method, folder: Path) -> nn.Module:
    """Load an adapter of PEFT's into its base model. Raises `ModelError`."""
    from peft import PeftModel

    try:
        with getattr(method, "wrapping", nullcontext)():
            model: nn.Module = PeftModel.from_pretrained(loaded.model, str(folder))
    except Exception as error:  # file errors have a dozen types
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from None
    return model


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
    missing = sorted(n for n, p in model.named_parameters() if p.requires_grad and n not in names)
    if missing:
        raise ModelError(
            f"{folder / TRAINED} lacks {len(missing)} tensors of this method "
            f"(the first is {missing[0]})."
        )
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
