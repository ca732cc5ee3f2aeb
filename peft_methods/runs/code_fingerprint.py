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
import inspect
import json
import linecache
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from peft_methods.runs.import_closure import (
    is_library,
    is_standard,
    links,
    module_code,
    reached,
    with_parents,
)
from peft_methods.utils.code_parsing import MARKER, Code, parse, sha256
from peft_methods.utils.errors import PeftMethodsError

MAIN = {"__main__", "__mp_main__"}  # the second is its name in a process that was spawned


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
                waiting |= set(with_parents(name))
    while waiting:
        name = waiting.pop()
        code = module_code(name)
        if code is None or code.is_registry:
            continue
        found[name] = code.digest
        waiting |= links(name) - found.keys()
    return dict(sorted(found.items()))


def _starts(root: object) -> Iterator[tuple[str, str]]:
    """Yield the modules at which a root's closure starts, and its definitions with digests."""
    if isinstance(root, ModuleType):
        root = root.__name__
    if isinstance(root, str):
        if module_code(root) is None:
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
        if module in MAIN or (
            part is root and (is_standard(module) or module_code(module) is None)
        ):
            yield from _definitions(part, set())
        elif not is_library(module):
            _refuse_registry(part)
            yield module, ""


def _refuse_registry(part: Any) -> None:
    code = module_code(part.__module__)
    if code is not None and code.is_registry:
        raise PeftMethodsError(
            f"{part.__qualname__} is defined in {part.__module__}, whose code is not part of "
            f"fingerprints since it has {MARKER} = True. Define it in another module."
        )


# Code without a module: scripts and notebooks


def _definitions(part: Any, seen: set[object]) -> Iterator[tuple[str, str]]:
    """Yield a class or function of a script or notebook, and all that it uses from there."""
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
    for name in reached("__main__", modules):
        yield name, ""


@cache
def _definition(part: Any) -> Code:
    """Return the code of one class or function. Raises `PeftMethodsError` without its source."""
    if source := _source_of(part):
        return parse(ast.parse(source), "")
    name = getattr(part, "name", part.__name__)
    raise PeftMethodsError(
        f"the source code of {name if isinstance(name, str) else part.__name__!r} "
        f"({part.__module__}.{part.__qualname__}) cannot be read, so results of one version of it "
        "could be taken for those of another. Move it to a .py file and import it from there."
    )


def _source_of(part: Any) -> str:
    """Return the text of a definition, or ''. A notebook's cell is found through a function."""
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
    """Whether the `repr` of a value describes it whole, and is the same in each process."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    return value is None or type(value) in (bool, int, float, complex, str, bytes)
