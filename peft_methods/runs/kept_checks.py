"""Results of recipe checks that are kept in the cache, for sessions that train nothing.

A session whose runs all have a record needs the digests of data and model, but neither torch nor a
worker process. A kept result counts only while everything that it was made from is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.profiling.environment import package_version, package_versions, processor_name
from peft_methods.profiling.nvml import driver_version, gpu_name
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.cache import cached_value
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.files import path_of
from peft_methods.utils.validation import adapter

KIND = "prepared"  # the cache's folder
PREPARE = "peft_methods.runs.prepare"  # makes the results; its imports count
READERS = ("pandas", "pyarrow", "safetensors", "tokenizers")  # packages beside the run's own
MAX_FILES, MAX_BYTES = 1000, 4 * 2**30  # of a source; the files of larger ones are not read twice
Key = Mapping[str, Any]


class _NotKeptError(Exception):
    """The cache has no value."""


def key_of(recipe: Recipe, methods: Sequence[Method], device: str, threads: int) -> Key | None:
    """Return everything that the check of a recipe depends on, as JSON values.

    None if that is not known without loading it: for sources on the hub, for very large ones, and
    for a model with code of its own.
    """
    needed = [one for method in methods for one, _ in method.prerequisites(recipe)]
    recipes = [recipe, *needed]
    if any(one.model.trust_remote_code for one in recipes):
        return None
    sources = {one.model.source for one in recipes} | {one.data.source for one in recipes}
    digests = {source: _digest(source) for source in sorted(sources)}
    if None in digests.values():
        return None
    try:
        code = code_fingerprint(PREPARE, *methods, *(TASKS[one.task] for one in recipes))
    except PeftMethodsError:  # the check will report it
        return None
    return {
        "recipes": [repr(asdict(one)) for one in recipes],
        "methods": [[method.name, repr(asdict(method))] for method in methods],
        "sources": digests,
        "code": code,
        "device": [device, _device_name(device), threads],
        "packages": {**package_versions(), **{name: package_version(name) for name in READERS}},
    }


def find(key: Key) -> PreparedRecipe | None:
    """Return the kept result; None if there is none, or none that can be read."""
    try:
        values = cached_value(KIND, key, _missing)
        return adapter(PreparedRecipe).validate_python(values)
    except (_NotKeptError, ValueError):
        return None


def keep(key: Key, prepared: PreparedRecipe) -> None:
    """Keep a result in the cache."""
    cached_value(KIND, key, lambda: asdict(prepared))


def _missing() -> Any:
    raise _NotKeptError


def _device_name(device: str) -> list[str | None]:
    if device == "cpu":
        return [processor_name()]
    return [gpu_name(), driver_version()]


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
