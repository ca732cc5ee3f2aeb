"""What a fingerprint takes from source code: a hash of its syntax tree, and its imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

MARKER = "IS_REGISTRY"
WITHOUT_MEANING = {"ctx", "kind"}  # fields of syntax nodes: given by their place, or the u of u""


@dataclass(frozen=True)
class Code:
    """A parsed piece of code. `imports` are pairs of a module and a name in it ("" for none).

    `exports` has each name that an import binds with the pair it stands for. `names` are all
    names used, and `public` are those in `__all__`.
    """

    digest: str
    imports: frozenset[tuple[str, str]] = frozenset()
    exports: tuple[tuple[str, tuple[str, str]], ...] = ()
    names: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset()
    is_registry: bool = False


def parse(tree: ast.Module, package: str) -> Code:
    """Hash the parts of a syntax tree that have a meaning, and collect its imports, in one walk.

    `package` is what relative imports start from.
    """
    parts: list[str] = []
    imports: set[tuple[str, str]] = set()
    exports: list[tuple[str, tuple[str, str]]] = []
    chains: set[tuple[str, ...]] = set()
    names: set[str] = set()
    not_followed: set[int] = set()
    stack: list[Any] = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            kept = [one for one in item if type(one) is not ast.Expr or not _is_text(one.value)]
            parts.append(f"[{len(kept)}")
            stack += reversed(kept)
            continue
        if not isinstance(item, ast.AST):
            parts.append(repr(item))
            continue
        kind = type(item).__name__
        parts.append(kind)
        stack += [getattr(item, field, None) for field in _fields(kind)]
        if isinstance(item, ast.Name):
            names.add(item.id)
        elif isinstance(item, ast.Attribute):
            chains.add(_chain(item))
        elif isinstance(item, ast.If):
            not_followed |= {id(node) for one in _never_run(item) for node in ast.walk(one)}
        elif isinstance(item, ast.Import | ast.ImportFrom) and id(item) not in not_followed:
            exports += _bindings(item, package)
            imports |= _imported(item, package)
    imports |= set(_through_attributes(chains, exports))
    return Code(
        digest=sha256("\n".join(parts)),
        imports=frozenset(imports),
        exports=tuple(exports),
        names=frozenset(names),
        public=frozenset(_public(tree)),
        is_registry=any(_assigned(MARKER, node) is True for node in tree.body),
    )


@cache
def _fields(kind: str) -> tuple[str, ...]:
    """Return the fields of a kind of syntax node, the last one first, as a stack takes them."""
    fields: tuple[str, ...] = getattr(ast, kind)._fields
    return tuple(field for field in reversed(fields) if field not in WITHOUT_MEANING)


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is a text. As a statement of its own it does nothing: a docstring."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _assigned(name: str, node: ast.stmt) -> Any:
    """The value that a statement gives to this name, where it is a literal; else None."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if not any(isinstance(one, ast.Name) and one.id == name for one in targets):
        return None
    try:
        return ast.literal_eval(getattr(node, "value", None) or "None")
    except ValueError:
        return None


def _public(tree: ast.Module) -> Iterator[str]:
    """The names in `__all__`."""
    for node in tree.body:
        values = _assigned("__all__", node)
        if isinstance(values, (list, tuple)):
            yield from (value for value in values if isinstance(value, str))


def _chain(node: ast.expr) -> tuple[str, ...]:
    """`a.b.c` as its names; nothing where the first part is not a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _through_attributes(
    chains: set[tuple[str, ...]], exports: list[tuple[str, tuple[str, str]]]
) -> Iterator[tuple[str, str]]:
    """After `import a.b as m`, the attribute m.c may be the module a.b.c: treat it as imported."""
    bound = {name: ".".join(filter(None, origin)) for name, origin in exports}
    for head, *rest in filter(None, chains):
        module = bound.get(head, "")
        for name in rest if module else ():
            yield module, name
            module = f"{module}.{name}"


def _never_run(node: ast.If) -> list[ast.stmt]:
    """The branch that only type checkers read."""
    test, branch = node.test, node.body
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, branch = test.operand, node.orelse
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return branch if name == "TYPE_CHECKING" else []


def _source_module(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of the module after `from`."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> set[tuple[str, str]]:
    if isinstance(node, ast.Import):
        return {(alias.name, "") for alias in node.names}
    return {(_source_module(node, package), alias.name) for alias in node.names}


def _bindings(
    node: ast.Import | ast.ImportFrom, package: str
) -> Iterator[tuple[str, tuple[str, str]]]:
    """The names that an import binds, with what they stand for. `import a.b` binds a."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, (_source_module(node, package), alias.name)
        elif alias.asname:
            yield alias.asname, (alias.name, "")
        else:
            top = alias.name.partition(".")[0]
            yield top, (top, "")


def sha256(content: str | bytes) -> str:
    """Hash a text or bytes."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()
