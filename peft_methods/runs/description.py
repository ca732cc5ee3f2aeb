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

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.models.loading import LoadedModel
from peft_methods.models.quantization import quantization_of
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import DEFAULT_TASK, ModelSpec
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS
from peft_methods.utils import sanitize
from peft_methods.utils.errors import ModelError, OptionError, PeftMethodsError, first_line
from peft_methods.utils.files import is_only_a_path, path_of
from peft_methods.utils.validation import build

DESCRIPTION = "method.json"
SOURCES = ("source", "test_source", "general_text")  # settings of a recipe that may be paths


NEEDED = ("method", "settings", "model", "label_names")  # every version wrote them
TYPES: Mapping[str, type] = {
    **dict.fromkeys(("format", "method", "task", "precision", "converted_from"), str),
    **dict.fromkeys(("weights_sha256", "data_sha256"), str),
    **dict.fromkeys(("settings", "model"), dict),
    "label_names": list,
}


def describe(
    run: RunSpec, base: LoadedModel, *, data_sha256: str = "", converted: Method | None = None
) -> dict[str, Any]:
    """Return the description of a run's model as JSON values.

    `data_sha256` is the fingerprint of the run's rows. `converted` is the method, with its
    settings, that the adapter of the run was converted to.
    """
    method = converted or run.method
    spec, head = run.recipe.model, TASKS[run.recipe.task].head
    labels = {} if head.pretrained else base.model.config.id2label
    return {
        "format": method.info.saved_format,
        "method": method.name,
        "task": run.recipe.task,
        "settings": portable_values(asdict(method)),
        "model": asdict(spec) | {"source": portable(spec.source)},
        "quantization": quantization_of(base.model),
        "precision": run.recipe.budget.precision,
        "weights_sha256": base.weights_sha256,
        "label_names": [name for _, name in sorted(labels.items())],
        "max_length": run.recipe.data.max_length,
        **({"max_new_tokens": run.recipe.data.max_new_tokens} if head.pretrained else {}),
        "run": _described_run(run),
        **({"data_sha256": data_sha256} if data_sha256 else {}),
        **({"converted_from": run.method.title} if converted else {}),
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
        for part in NEEDED:
            saved[part]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{folder} holds no model saved by peft_methods: {first_line(error)}"
        ) from None
    wrong = [name for name, kind in TYPES.items() if not isinstance(saved.get(name, kind()), kind)]
    if not wrong and not all(isinstance(name, str) for name in saved["label_names"]):
        wrong = ["label_names"]
    if wrong:
        raise ModelError(f"{folder / DESCRIPTION} is damaged: {wrong[0]} has a wrong type")
    return saved


def method_of(saved: Mapping[str, Any], folder: Path) -> Method:
    """Return the method of a saved model. Raises `ModelError` if this version has none such."""
    try:
        method: Method = METHODS.create(saved["method"], saved["settings"], str(folder))
    except OptionError as error:
        raise ModelError(str(error)) from None
    return method


def base_spec_of(saved: Mapping[str, Any], folder: Path) -> ModelSpec:
    """Return which base model a saved model needs. Raises `ModelError` for invalid settings."""
    try:
        return build(ModelSpec, saved["model"], str(folder))
    except OptionError as error:
        raise ModelError(str(error)) from None


def task_of(saved: Mapping[str, Any], folder: Path) -> Task:
    """Return the task of a saved model. Raises `ModelError` if this version has none such."""
    try:
        return TASKS[saved.get("task", DEFAULT_TASK)]
    except OptionError as error:
        raise ModelError(f"{folder}: {error}") from None


def run_of(saved: Mapping[str, Any], folder: Path) -> RunSpec:
    """Return the run whose model was saved. Raises `ModelError` if it is not described."""
    if "run" not in saved or "data_sha256" not in saved:
        raise ModelError(
            f"{folder} was saved by a version that did not describe its run, and so names no test "
            f"rows: train the model again"
        )
    try:
        return RunSpec.from_json(saved["run"])
    except (
        *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
        PeftMethodsError,
    ) as error:
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
