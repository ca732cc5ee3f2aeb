"""Fingerprint of the code that a run depends on: a hash over the import closure of its parts.

The closure starts at the roots (method, task, engine and pipeline) and follows the `import`
statements of each module, at the top level and inside functions. `if TYPE_CHECKING:` blocks are not
followed, and neither are modules imported by a computed name (`importlib.import_module`).

Three kinds of modules are followed: this package, the root's own top-level package, and local code
of the user's, which no version number describes. Installed libraries are not followed.

A module with `IS_REGISTRY = True` at its top level lists others that do not depend on each other.
It is not part of any closure and its imports are not followed, so one more entry changes no
fingerprint. A name that it imports itself leads on to the module that defines the name. It must
not define anything that results depend on; a method defined in it is refused.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import json
import linecache
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.abc import InspectLoader
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from peft_methods.profiling.environment import FINGERPRINT_PACKAGES
from peft_methods.utils.code_parsing import MARKER, Code, parse, sha256
from peft_methods.utils.errors import PeftMethodsError

PROJECT = __name__.partition(".")[0]
MAIN = {"__main__", "__mp_main__"}  # the second is its name in a process that was spawned
INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages


def code_fingerprint(*roots: object) -> str:
    """Return a SHA-256 of the code that the roots depend on. Comments and docstrings do not count.

    A root is a module or its name, a class, a function or any other object, which stands for its
    class. A class stands for the modules of all classes in its method resolution order.
    """
    return sha256(json.dumps(code_closure(*roots), sort_keys=True))


def code_closure(*roots: object) -> dict[str, str]:
    """Return the digest of each module that the roots depend on, by the module's name.

    Files are read once a process: an edit after the first look changes nothing. Definitions of a
    script or a notebook stand alone, as "__main__:name". Raises `PeftMethodsError` for code that
    cannot be read.
    """
    found: dict[str, str] = {}
    waiting: set[str] = set()
    for root in roots:
        for name, digest in _starts(root):
            if digest:
                found[name] = digest
            else:
                waiting |= set(_with_parents(name))
    while waiting:
        name = waiting.pop()
        code = _module(name)
        if code is None or code.is_registry:
            continue
        found[name] = code.digest
        waiting |= _links(name) - found.keys()
    return dict(sorted(found.items()))


def _starts(root: object) -> Iterator[tuple[str, str]]:
    """The modules at which a root's closure starts, and its own definitions with their digests."""
    if isinstance(root, ModuleType):
        root = root.__name__
    if isinstance(root, str):
        if _module(root) is None:
            raise PeftMethodsError(
                f"module {root!r} cannot be found, so the code of a run that uses it is not known. "
                "Check its name and that Python can import it."
            )
        yield root, ""
        return
    if not isinstance(root, (type, FunctionType)):
        root = type(root)
    for part in root.__mro__ if isinstance(root, type) else (root,):
        module = part.__module__
        if module in MAIN or (part is root and (_is_standard(module) or _module(module) is None)):
            yield from _definitions(part, set())
        elif not _is_library(module):
            _refuse_registry(part)
            yield module, ""


def _refuse_registry(part: Any) -> None:
    code = _module(part.__module__)
    if code is not None and code.is_registry:
        raise PeftMethodsError(
            f"{part.__qualname__} is defined in {part.__module__}, whose code is not part of "
            f"fingerprints since it has {MARKER} = True. Define it in another module."
        )


def _with_parents(name: str) -> Iterator[str]:
    """`a.b.c` runs the `__init__` modules of a and a.b too."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


# Imports: from a statement to modules


@cache
def _links(name: str) -> frozenset[str]:
    """The modules that a module's imports lead to."""
    code = _module(name)
    return _reached(name, code.imports) if code else frozenset()


def _reached(importer: str, imports: Iterable[tuple[str, str]]) -> frozenset[str]:
    found: set[str] = set()
    for module, name in imports:
        _resolve(importer, module, name, found, set())
    return frozenset(found)


def _resolve(
    importer: str, module: str, name: str, found: set[str], seen: set[tuple[str, str]]
) -> None:
    """Add the modules that `from module import name` runs, or `import module` without a name.

    A registry is asked where it has the name from.
    """
    if not module or (module, name) in seen or not _is_followed(importer, module):
        return
    seen.add((module, name))
    found.update(one for one in _with_parents(module) if _module(one))
    code = _module(module)
    if not name or code is None:
        return
    for one in code.public if name == "*" else (name,):
        if _module(f"{module}.{one}"):
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
    return own != PROJECT and not _is_library(top) and not _is_installed(top)


def _is_library(name: str) -> bool:
    """Whether a module comes with Python or its version is part of a run's fingerprint anyway."""
    return name.partition(".")[0] in FINGERPRINT_PACKAGES or _is_standard(name)


def _is_standard(name: str) -> bool:
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
    """Where a module's code is. Unlike `importlib.util.find_spec`, this imports no parent."""
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
def _module(name: str) -> Code | None:
    """A module's code as it was when first asked for; None where there is no such module."""
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
    elif isinstance(spec.loader, InspectLoader):  # in an archive
        source = spec.loader.get_source(name)
    if source is None:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # whatever imports it fails or handles that
        return Code(sha256(source))
    return parse(tree, name if is_package else name.rpartition(".")[0])


# Code without a module: scripts and notebooks


def _definitions(part: Any, seen: set[object]) -> Iterator[tuple[str, str]]:
    """A class or function of a script or notebook, and all that it uses of those defined there."""
    if part in seen:
        return
    seen.add(part)
    code = _definition(part)
    label = f"{'__main__' if part.__module__ in MAIN else part.__module__}:{part.__qualname__}"
    yield label, code.digest
    modules = set(code.imports)
    module = sys.modules.get(part.__module__)
    around = vars(module) if module else {}
    for name in sorted(code.names & around.keys()):
        value = inspect.unwrap(around[name]) if callable(around[name]) else around[name]
        if isinstance(value, ModuleType):
            modules.add((value.__name__, ""))
        elif not isinstance(value, (type, FunctionType)):
            if _is_plain(value):
                yield f"{label}.{name}", sha256(repr(value))
        elif value.__module__ == part.__module__:
            yield from _definitions(value, seen)
        else:
            modules.add((value.__module__, ""))
    for reached in _reached("__main__", modules):
        yield reached, ""


@cache
def _definition(part: Any) -> Code:
    """The code of one class or function. Raises `PeftMethodsError` where its source is lost."""
    if source := _source_of(part):
        return parse(ast.parse(source), "")
    name = getattr(part, "name", part.__name__)
    raise PeftMethodsError(
        f"the source code of {name if isinstance(name, str) else part.__name__!r} "
        f"({part.__module__}.{part.__qualname__}) cannot be read, so results of one version of it "
        "could be taken for those of another. Move it to a .py file and import it from there."
    )


def _source_of(part: Any) -> str:
    """The text of a definition, or nothing. A notebook's cells are found through its functions."""
    with contextlib.suppress(OSError, TypeError):
        return textwrap.dedent(inspect.getsource(part))
    for member in vars(part).values() if isinstance(part, type) else ():
        function = inspect.unwrap(getattr(member, "__func__", member))
        if not isinstance(function, FunctionType):
            continue
        run = "".join(linecache.getlines(function.__code__.co_filename))
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse(run)):
                if isinstance(node, ast.ClassDef) and node.name == part.__name__:
                    return ast.get_source_segment(run, node) or ""
    return ""


def _is_plain(value: object) -> bool:
    """Whether the `repr` of a value is all there is to it, and the same in each process."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    return value is None or type(value) in (bool, int, float, complex, str, bytes)
