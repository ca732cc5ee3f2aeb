"""Results of recipe checks that are kept in the cache, for sessions that train nothing.

A session whose runs all have a record needs the digests of data and model, but neither torch nor a
worker process. A kept result counts only while everything that it was made from is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.profiling.environment import package_version, package_versions, processor_name
from peft_methods.profiling.nvml import driver_version
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import Recipe, Tuning
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.prepared import NO_ENGINES, PreparedRecipe
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.cache import cached_value
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.files import path_of
from peft_methods.utils.validation import adapter

KIND = "prepared"  # the cache's folder
# Make the results; their imports count.
PREPARE, PREDICTING = "peft_methods.runs.prepare", "peft_methods.runs.predicting"
READERS = ("pandas", "pyarrow", "safetensors", "tokenizers")  # packages beside the run's own
MAX_KEPT = 512  # of the cache's folder, one for each method of a recipe: a few KiB
MAX_FILES, MAX_BYTES = 1000, 4 * 2**30  # of a source; the files of larger ones are not read twice
Keys = Mapping[str, Any]  # by method, so that a session with fewer or other methods finds its own


class _NotKeptError(Exception):
    """The cache has no value."""


def keys_of(
    recipe: Recipe,
    methods: Sequence[Method],
    device: str,
    kind: tuple[str, int],
    nodes: str | None = "",
    *,
    engines: Mapping[str, str] = NO_ENGINES,
) -> Keys | None:
    """Return everything that the check of a recipe depends on, as JSON values, for each method.

    `engines` train the methods, by name: predictions are for one of them.

    `kind` is the name of the device and the number of threads. `nodes` describes the machines on
    which it runs: '' for this one, None if that is not known.

    None if that is not known without loading it: for sources on the hub, for very large ones, and
    for a model with code of its own.
    """
    if nodes is None:
        return None
    needed = {
        method.name: [recipe, *(one for one, _ in method.prerequisites(recipe))]
        for method in methods
    }
    recipes = [one for found in needed.values() for one in found]
    if any(one.model.trust_remote_code for one in recipes):
        return None
    digests = {source: _digest(source) for source in sorted(_sources(recipes))}
    if None in digests.values():
        return None
    shared = {
        "device": [device, [nodes] if nodes else _device_names(device, kind[0]), kind[1]],
        "packages": {**package_versions(), **{name: package_version(name) for name in READERS}},
    }
    try:
        return {
            method.name: {
                "recipes": [_settings(one) for one in needed[method.name]],
                "sources": {source: digests[source] for source in _sources(needed[method.name])},
                "method": [method.name, repr(asdict(method)), engines.get(method.name, "")],
                "code": code_fingerprint(
                    *(PREPARE, PREDICTING, method),
                    *(TASKS[one.task] for one in needed[method.name]),
                ),
                **shared,
            }
            for method in methods
        }
    except PeftMethodsError:  # the check will report it
        return None


def _sources(recipes: Sequence[Recipe]) -> set[str]:
    return {one.model.source for one in recipes} | {one.data.source for one in recipes}


def _settings(recipe: Recipe) -> str:
    """Describe the settings of a recipe that its check depends on."""
    draws_rows = recipe.budget.row_seeds(0)
    budget = recipe.budget if draws_rows else replace(recipe.budget, seeds=(0,))
    own = replace(recipe, budget=budget, methods={}, title="", notes=(), tuning=Tuning())
    return repr(asdict(own))


def find(keys: Keys) -> PreparedRecipe | None:
    """Return the kept result; None if any method has none, or none that can be read."""
    try:
        parts = [
            adapter(PreparedRecipe).validate_python(cached_value(KIND, key, _missing))
            for key in keys.values()
        ]
    except (_NotKeptError, ValueError):
        return None
    return _together(parts)


def keep(keys: Keys, prepared: PreparedRecipe) -> None:
    """Keep a result in the cache: for each method its unsupported reason and all facts."""
    for name, key in keys.items():
        own = {one: why for one, why in prepared.unsupported.items() if one == name}
        cost = {one: found for one, found in prepared.predicted.items() if one == name}
        kept = replace(prepared, unsupported=own, predicted=cost)
        cached_value(KIND, key, partial(asdict, kept), MAX_KEPT)


def _together(parts: Sequence[PreparedRecipe]) -> PreparedRecipe:
    """Return one result for all methods. Facts differ by the methods that were checked along."""
    unsupported = {name: why for one in parts for name, why in one.unsupported.items()}
    predicted = {name: cost for one in parts for name, cost in one.predicted.items()}
    whole = replace(
        parts[0],
        unsupported=unsupported,
        predicted=predicted,
        is_predicted=all(one.is_predicted for one in parts),
        facts=None,
    )
    known = [one.facts for one in parts if one.facts is not None]
    if len(known) < len(parts):
        return whole
    facts = replace(
        known[0],
        weights={name: digest for one in known for name, digest in one.weights.items()},
        data={name: digest for one in known for name, digest in one.data.items()},
    )
    return replace(whole, facts=facts)


def _missing() -> Any:
    raise _NotKeptError


def _device_names(device: str, name: str) -> list[str | None]:
    return [processor_name()] if device == "cpu" else [name, driver_version()]


def _digest(source: str) -> str | None:
    """Return a digest of a source's files; None if they are not local or too large.

    The digests of bundled files are part of the code.
    """
    if source.startswith(PREFIX):
        return ""
    path = path_of(source)
    if path is None:
        return None
    try:
        files = sorted(_files(path))
        if len(files) > MAX_FILES or sum(file.stat().st_size for file in files) > MAX_BYTES:
            return None
        whole = hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            whole.update(f"{file.relative_to(path.parent)} {content}\n".encode())
        return whole.hexdigest()
    except (OSError, ValueError):
        return None


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of a folder, up to one more than may be read."""
    if path.is_file():
        yield path
        return
    for count, file in enumerate(file for file in path.rglob("*") if file.is_file()):
        if count > MAX_FILES:
            return
        yield file
