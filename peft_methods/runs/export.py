"""Save trained models in the format of their method, and load models of our own format.

- `transformers`: a whole model folder (full fine-tuning, BitFit, head only).
  Load it with `AutoModelForSequenceClassification.from_pretrained(folder)`.
- `peft`: a PEFT folder (LoRA, QLoRA, IA3). Load it with `PeftModel.from_pretrained(base, folder)`.
- `peft_methods`: `trained.safetensors` and `method.json` (adapters, fusion).
  Load it with `peft_methods.load_trained(folder)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from peft_methods.methods.base import TRAINED, ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.parameters import load_trainable
from peft_methods.recipes.schema import DEFAULT_TASK, ModelSpec
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import ModelError, first_line
from peft_methods.utils.validation import build

DESCRIPTION = "method.json"


def save_trained(model: nn.Module, run: RunSpec, base: loading.LoadedModel, folder: Path) -> None:
    """Save the model in its method's format, and its tokenizer, to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    base.tokenizer.save_pretrained(str(folder))
    if run.method.info.saved_format == "peft_methods":
        _save_parameters(run.method.saved_parameters(model), folder / TRAINED)
        (folder / DESCRIPTION).write_text(
            json.dumps(_description(run, base), indent=1), encoding="utf-8"
        )
    else:
        # transformers' and PEFT's models have this method
        model.save_pretrained(str(folder))  # type: ignore[operator]


def _save_parameters(saved: Mapping[str, nn.Parameter], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: p.detach().cpu().contiguous() for name, p in saved.items()}, path)


def _description(run: RunSpec, base: loading.LoadedModel) -> dict[str, Any]:
    return {
        "method": run.method.name,
        "task": run.recipe.task,
        "settings": asdict(run.method),
        "model": asdict(run.recipe.model),
        "label_names": [name for _, name in sorted(base.model.config.id2label.items())],
    }


def load_trained(
    folder: str | Path, *, device: str = "cpu", trust_remote_code: bool = False
) -> nn.Module:
    """Load a classifier saved in the `peft_methods` format, ready to predict.

    `trust_remote_code` allows the base model's own Python files to run, if it was trained with
    them. Raises `ModelError` if the folder holds no such model.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    try:
        saved = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        name, settings, model_spec, label_names = (
            saved[part] for part in ("method", "settings", "model", "label_names")
        )
        with safe_open(folder / TRAINED, framework="pt") as file:
            names = set(file.keys())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no model saved by peft_methods: {first_line(error)}"
        ) from None
    method: Method = METHODS.create(name, settings, str(folder))
    spec = build(ModelSpec, model_spec, str(folder))
    if spec.trust_remote_code and not trust_remote_code:
        raise ModelError(
            f"{folder}: its base model runs Python code from its repository. Read that code, then "
            f"load the model with trust_remote_code=True."
        )
    task = TASKS[saved.get("task", DEFAULT_TASK)]
    base = loading.load(spec, task.head, tuple(label_names), device=device)
    model = method.apply(base.model, ApplyContext(base.architecture, base.head, task.peft_type))
    missing = sorted(n for n, p in model.named_parameters() if p.requires_grad and n not in names)
    if missing:
        raise ModelError(
            f"{folder / TRAINED} lacks {len(missing)} tensors of this method "
            f"(the first is {missing[0]})."
        )
    load_trainable(model, folder / TRAINED)
    return model.eval()
