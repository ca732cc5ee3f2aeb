"""The description of a saved model, method.json: its method, its base model, and its run.

It names no home folder, so that the folder can be given away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peft_methods.models.loading import LoadedModel
from peft_methods.models.quantization import quantization_of
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils import sanitize
from peft_methods.utils.errors import ModelError, PeftMethodsError, first_line
from peft_methods.utils.files import is_only_a_path, path_of

DESCRIPTION = "method.json"
SOURCES = ("source", "test_source", "general_text")  # settings of a recipe that may be paths


def describe(run: RunSpec, base: LoadedModel, converted_from: str = "") -> dict[str, Any]:
    """Return the description of a run's model as JSON values.

    `converted_from` is the title of the method that was trained, if it is another one.
    """
    spec, head = run.recipe.model, TASKS[run.recipe.task].head
    labels = {} if head.pretrained else base.model.config.id2label
    return {
        "format": run.method.info.saved_format,
        "method": run.method.name,
        "task": run.recipe.task,
        "settings": portable_values(asdict(run.method)),
        "model": asdict(spec) | {"source": portable(spec.source)},
        "quantization": quantization_of(base.model),
        "precision": run.recipe.budget.precision,
        "weights_sha256": base.weights_sha256,
        "label_names": [name for _, name in sorted(labels.items())],
        "max_length": run.recipe.data.max_length,
        **({"max_new_tokens": run.recipe.data.max_new_tokens} if head.pretrained else {}),
        "run": _described_run(run),
        **({"converted_from": converted_from} if converted_from else {}),
    }


def _described_run(run: RunSpec) -> dict[str, Any]:
    """Return a run's spec as JSON values, without its prerequisites and without private data."""
    values = replace(run.recorded(), prerequisites=()).to_json()
    recipe = dict(values["recipe"])
    for part in ("model", "data"):
        recipe[part] = {
            name: portable(value) if name in SOURCES and isinstance(value, str) else value
            for name, value in recipe[part].items()
        }
    method = portable_values(values["method"])
    described: dict[str, Any] = sanitize.private({**values, "recipe": recipe, "method": method})
    return described


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description in a folder. Raises `ModelError` if it holds no saved model."""
    try:
        saved: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        for part in ("method", "settings", "model", "label_names"):
            saved[part]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no model saved by peft_methods: {first_line(error)}"
        ) from None
    return saved


def run_of(saved: Mapping[str, Any], folder: Path) -> RunSpec:
    """Return the run whose model was saved. Raises `ModelError` if it is not described."""
    if "run" not in saved:
        raise ModelError(
            f"{folder} was saved by a version that did not describe its run, and so names no test "
            f"rows: train the model again"
        )
    try:
        return RunSpec.from_json(saved["run"])
    except (KeyError, TypeError, ValueError, AttributeError, PeftMethodsError) as error:
        raise ModelError(
            f"{folder / DESCRIPTION} describes no run of this version: {first_line(error)}"
        ) from None


def portable(source: str) -> str:
    """Return a source in a form that holds in other folders and names no home folder."""
    path = None if source.startswith(PREFIX) else path_of(source)
    if path is None:
        return source
    absolute, home = os.path.abspath(path), str(Path.home())
    inside = absolute.startswith(home.rstrip(os.sep) + os.sep)
    return os.path.join("~", os.path.relpath(absolute, home)) if inside else absolute


def portable_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with portable paths (AdapterFusion's sources may be folders of data)."""
    return {name: _portable_value(value) for name, value in settings.items()}


def _portable_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_portable_value(one) for one in value]
    return portable(value) if isinstance(value, str) and is_only_a_path(value) else value
