"""The layout of the code: packages import one way, files are short, words are in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import peft_methods

ROOT = Path(peft_methods.__file__).parent
PACKAGES = (
    "utils",
    "recipes",
    "models",
    "data",
    "tasks",
    "methods",
    "training",
    "profiling",
    "estimation",
    "runs",
    "capabilities",
    "analysis",
    "report",
    "cli",
)  # each imports only those before it
ON_TOP = ("__init__", "__main__", "api", "plugin")
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def imported(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Yield the project's modules that a file imports; without `lazy` only at its top level."""
    nodes = nodes_of(path) if lazy else _at_import(tree_of(path))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peft_methods"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("peft_methods"))


def _at_import(tree: ast.Module) -> Iterator[ast.AST]:
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_packages_are_those_of_the_design() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(PACKAGES)
    assert {path.stem for path in ROOT.glob("*.py")} == set(ON_TOP)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_before_them(package: str) -> None:
    allowed = set(PACKAGES[: PACKAGES.index(package) + 1])
    upward = [
        f"{module} imports {target}"
        for module, path in MODULES.items()
        if package_of(module) == package
        for target in imported(path)
        if package_of(target) not in allowed and target != "peft_methods"
    ]
    assert upward == []


def test_files_do_not_import_each_other_in_circles() -> None:
    """Imports inside functions and for type checkers count too."""
    graph = {module: set(imported(path)) - {module} for module, path in MODULES.items()}
    for module, targets in graph.items():  # a package's own __init__ is no dependency of its files
        graph[module] = {t for t in targets if not module.startswith(f"{t}.")}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_no_file_is_longer_than_300_lines() -> None:
    long = {
        module: lines
        for module, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{module}.{node.name}": length
        for module, path in MODULES.items()
        for node in functions_of(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert long == {}


def test_only_the_command_line_knows_its_options() -> None:
    outside = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if package_of(module) not in {"cli", "plugin"}
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and "--peft-" in str(node.value)
    ]
    assert outside == []


def test_specs_are_read_by_attribute_outside_runs() -> None:
    """No `record.spec["recipe"]` nor `spec.get("recipe")`: a spec is a typed object."""
    outside = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if package_of(module) != "runs"
        for node in nodes_of(path)
        if _is_string_subscript_of_a_spec(node)
    ]
    assert outside == []


def _is_string_subscript_of_a_spec(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        owner, key = node.func.value, node.args[0]
        if node.func.attr != "get":
            return False
    else:
        return False
    if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute):
        owner = owner.func.value if owner.func.attr == "to_json" else owner
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name == "spec" and isinstance(key, ast.Constant) and isinstance(key.value, str)


def test_model_classes_losses_and_decoding_stand_in_tasks_alone() -> None:
    names = re.compile(r"AutoModelFor\w+|cross_entropy|log_softmax|softmax|argmax")
    outside = sorted(
        f"{module}: {name}"
        for module, path in MODULES.items()
        if package_of(module) != "tasks"
        for node in nodes_of(path)
        for name in [
            node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", ""),
            *([a.name for a in node.names] if isinstance(node, ast.ImportFrom) else []),
            *([str(node.value)] if isinstance(node, ast.Constant) else []),
        ]
        if names.fullmatch(name)
    )
    assert outside == []


@pytest.mark.parametrize("module", ["peft_methods.plugin", "peft_methods.__main__"])
def test_loading_the_plugin_imports_no_training_library(module: str) -> None:
    heavy = ("torch", "transformers", "peft", "datasets", "pandas", "sklearn", "scipy")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout.strip() == "[]"


def test_test_modules_do_not_import_each_other() -> None:
    tests = Path(__file__).parent
    names = {path.stem for path in tests.rglob("test_*.py")} | {"conftest"}
    found = [
        f"{path.relative_to(tests)} imports {name}"
        for path in sorted(tests.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name and name.split(".")[-1] in names and not name.startswith("peft_methods")
    ]
    assert found == []


def test_test_folders_mirror_the_package() -> None:
    tests = Path(__file__).parent
    folders = {path.name for path in tests.iterdir() if any(path.glob("**/test_*.py"))}
    assert folders - {"docs", "faults", "parity"} <= set(PACKAGES)
