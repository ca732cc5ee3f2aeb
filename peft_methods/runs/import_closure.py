"""Modules and the modules that their imports lead to, from source code alone: nothing is imported.

See `code_fingerprint` for which modules are followed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path

from peft_methods.profiling.environment import FINGERPRINT_PACKAGES
from peft_methods.runs.parsed_code import parsed
from peft_methods.utils.code_parsing import Code, sha256

PROJECT = __name__.partition(".")[0]
INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages


def with_parents(name: str) -> Iterator[str]:
    """Yield a, a.b and a.b.c for a.b.c: its import runs the `__init__` modules of the others."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


# Imports: from a statement to modules


@cache
def links(name: str) -> frozenset[str]:
    """Return the modules that a module's imports lead to."""
    code = module_code(name)
    return reached(name, code.imports) if code else frozenset()


def reached(importer: str, imports: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the modules that these imports of a module or script lead to."""
    found: set[str] = set()
    for module, name in imports:
        _resolve(importer, module, name, found, set())
    return frozenset(found)


def _resolve(
    importer: str, module: str, name: str, found: set[str], seen: set[tuple[str, str]]
) -> None:
    """Add the modules that `from module import name` runs, or `import module` without a name.

    A name from a registry leads to the module from which the registry imports it.
    """
    if not module or (module, name) in seen or not _is_followed(importer, module):
        return
    seen.add((module, name))
    found.update(one for one in with_parents(module) if module_code(one))
    code = module_code(module)
    if not name or code is None:
        return
    for one in code.public if name == "*" else (name,):
        if module_code(f"{module}.{one}"):
            found.add(f"{module}.{one}")
    if code.is_registry:
        for bound, origin in code.exports:
            if name in (bound, "*"):
                _resolve(module, *origin, found, seen)
            elif bound == "*":  # it may be any of the names there
                _resolve(module, origin[0], name, found, seen)


@cache
def _is_followed(importer: str, name: str) -> bool:
    top, own = name.partition(".")[0], importer.partition(".")[0]
    if top in (PROJECT, own):
        return True
    return own != PROJECT and not is_library(top) and not _is_installed(top)


def is_library(name: str) -> bool:
    """Whether a module comes with Python or its version is part of a run's fingerprint anyway."""
    return name.partition(".")[0] in FINGERPRINT_PACKAGES or is_standard(name)


def is_standard(name: str) -> bool:
    """Whether a module comes with Python."""
    return name.partition(".")[0] in sys.stdlib_module_names


@cache
def _is_installed(top: str) -> bool:
    """Whether a package lies where installers put packages. Unknown ones count as installed."""
    spec = _spec(top)
    if spec is None:
        return True
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return not places or any(INSTALLED & set(Path(str(place)).parts) for place in places)


# Modules: from a name to parsed code


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Return where a module's code is. Unlike `util.find_spec`, this imports no parent."""
    if loaded := sys.modules.get(name):
        if isinstance(spec := getattr(loaded, "__spec__", None), ModuleSpec):
            return spec
        file = getattr(loaded, "__file__", None)
        return importlib.util.spec_from_file_location(name, file) if file else None
    path = None
    if parent := name.rpartition(".")[0]:
        spec = _spec(parent)
        path = spec.submodule_search_locations if spec else None
        if path is None:
            return None
    for finder in sys.meta_path:
        if found := finder.find_spec(name, path):
            return found
    return None


@cache
def module_code(name: str) -> Code | None:
    """Return a module's code as it was at the first call; None if there is no such module."""
    spec = _spec(name)
    if spec is None:
        return None
    is_package = spec.submodule_search_locations is not None
    if spec.origin is None and is_package:
        return Code("")  # a namespace: a folder without code
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    source: str | bytes | None = None
    if file is not None and file.is_file():
        source = file.read_bytes()
        if file.suffix not in SOURCE_SUFFIXES:
            return Code(sha256(source))  # compiled code
    elif read_source := getattr(spec.loader, "get_source", None):  # in an archive
        source = read_source(name)
    if source is None:
        return None
    return parsed(source, name if is_package else name.rpartition(".")[0])
