"""A run's code fingerprint changes with the code that the run depends on, and with no other."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import peft_methods
from builders import CORE
from peft_methods.methods.registry import METHODS
from peft_methods.runs.code_fingerprint import code_closure, code_fingerprint
from peft_methods.runs.spec import PIPELINE
from peft_methods.training.registry import ENGINES
from peft_methods.utils.code_parsing import parse
from peft_methods.utils.errors import PeftMethodsError

PACKAGE = Path(peft_methods.__file__).parent
# Files are read once a process. This one imports what all cases need, then forks for each: a line
# with its code, as JSON. The answer is a line too.
SERVER = """
import importlib, json, os, sys
from peft_methods.methods import METHODS
from peft_methods.runs.code_fingerprint import code_closure, code_fingerprint
from peft_methods.runs.spec import PIPELINE
from peft_methods.training.registry import ENGINES
def root(name):
    module, _, attribute = name.partition(":")
    module = importlib.import_module(module)
    return getattr(module, attribute) if attribute else module
for line in sys.stdin:
    if os.fork() == 0:
        exec(json.loads(line))
        sys.stdout.flush()
        os._exit(0)
    _, status = os.wait()
    if status:
        print(f"error: {status}")
        sys.stdout.flush()
"""
CLOSURE = """
sys.path[:0] = {paths!r}
print(json.dumps(code_closure(*map(root, {roots!r}))))
"""


class Forks:
    """A process without torch that forks for every piece of code."""

    def __init__(self, package: Path) -> None:
        """Start it with the package in a folder."""
        code = f"import sys; sys.path.insert(0, {str(package)!r})\n{SERVER}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, code: str) -> Any:
        """Return what a piece of code prints, read from JSON."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    process = Forks(PACKAGE.parent)
    yield process
    process.end()


def python(code: str, *arguments: str) -> str:
    """Return the output of a new process."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Project:
    """Code of a user's, in a folder on the module search path."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self._forks = folder, forks
        self.write("acme/__init__.py", "")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def closure(self, *roots: str) -> dict[str, str]:
        """The digests by module; a root is "module" or "module:class"."""
        paths = [str(self.folder), str(self.folder / "site-packages")]
        found: dict[str, str] = self._forks.run(CLOSURE.format(paths=paths, roots=roots))
        return found

    def changed(self, root: str, edit: Callable[[], Any]) -> bool:
        before = self.closure(root)
        edit()
        return self.closure(root) != before


@pytest.fixture
def project(tmp_path: Path, forks: Forks) -> Project:
    return Project(tmp_path, forks)


# The user's own packages


def test_method_in_a_sub_package_is_covered(project: Project) -> None:
    project.write("acme/family/__init__.py", "")
    project.write("acme/family/low.py", "class A:\n    rank = 1\n")
    assert project.closure("acme.family.low:A").keys() == {"acme", "acme.family", "acme.family.low"}
    assert project.changed(
        "acme.family.low:A",
        lambda: project.write("acme/family/low.py", "class A:\n    rank = 2\n"),
    )


def test_methods_outside_the_package_with_different_sources_differ(project: Project) -> None:
    project.write("acme/a.py", "class A:\n    rank = 1\n")
    project.write("other/a.py", "class A:\n    rank = 2\n")
    first, second = project.closure("acme.a:A"), project.closure("other.a:A")
    assert set(first.values()).isdisjoint(second["other.a"])
    assert first["acme.a"] != second["other.a"]


def test_base_classes_in_other_packages_are_covered(project: Project) -> None:
    project.write("core.py", "from torch import nn\nclass Core(nn.Module): ...\n")
    project.write("acme/mixin.py", "import core\nclass Mixin: ...\n")
    project.write(
        "acme/a.py",
        """
        from abc import ABC
        from core import Core
        from acme.mixin import Mixin
        from peft_methods.methods.low_rank.lora import LoRA
        class A(LoRA, Mixin, ABC): ...
        """,
    )
    found = project.closure("acme.a:A")
    assert {"acme.a", "acme.mixin", "core"} < found.keys()
    assert {"peft_methods.methods.low_rank.lora", "peft_methods.methods.base"} < found.keys()
    assert not {name for name in found if name.startswith(("torch", "abc"))}


REGISTRY = "{marker}\nfrom acme.a import A\nfrom acme.b import B\nfrom acme.base import Base\n"


@pytest.fixture
def two_methods(project: Project) -> Project:
    """Two methods that import their base from a registry of both."""
    project.write("acme/__init__.py", REGISTRY.format(marker="IS_REGISTRY = True"))
    project.write("acme/base.py", "class Base: ...\n")
    for name in "ab":
        text = f"import acme\nfrom acme.base import Base\nclass {name.upper()}(Base): ...\n"
        project.write(f"acme/{name}.py", text)
    return project


def test_edit_of_a_sibling_method_changes_nothing(two_methods: Project) -> None:
    assert two_methods.closure("acme.a:A").keys() == {"acme.a", "acme.base"}
    edit = "from acme.base import Base\nclass B(Base):\n    rank = 2\n"
    assert not two_methods.changed("acme.a:A", lambda: two_methods.write("acme/b.py", edit))


def test_one_more_method_changes_nothing(two_methods: Project) -> None:
    def add() -> None:
        two_methods.write("acme/c.py", "from acme.base import Base\nclass C(Base): ...\n")
        more = REGISTRY.format(marker="IS_REGISTRY: bool = True") + "from acme.c import C\n"
        two_methods.write("acme/__init__.py", more)

    assert not two_methods.changed("acme.a:A", add)


def test_siblings_count_in_a_package_that_is_not_marked(two_methods: Project) -> None:
    two_methods.write("acme/__init__.py", REGISTRY.format(marker="IS_REGISTRY = False"))
    assert "acme.b" in two_methods.closure("acme.a:A")


@pytest.mark.parametrize(
    "use",
    [
        "from lists import Base",
        "from lists import Base as Other",
        "import lists\nx = lists.Base",
        "import lists as them\nx = them.Base",
        "import lists.deep as them\nx = them.Base",
        "from lists import deep\ndef f():\n    return deep.Base",
        "from lists.deep import Base",
        "from lists.deep import *",
        "from lists import stars",
        "from lists.stars import Base",
    ],
)
def test_name_from_a_registry_leads_to_the_module_that_defines_it(
    project: Project, use: str
) -> None:
    project.write("lists/__init__.py", "IS_REGISTRY = True\nfrom lists.deep import Base, ALL\n")
    project.write("lists/deep.py", "IS_REGISTRY = True\nfrom lists.base import Base\nALL = []\n")
    project.write("lists/stars.py", "IS_REGISTRY = True\nfrom lists.base import *\n")
    project.write("lists/base.py", "class Base: ...\n")
    project.write("acme/a.py", f"{use}\nclass A: ...\n")
    expected = set() if use.endswith("stars") else {"lists.base"}
    assert project.closure("acme.a:A").keys() == {"acme", "acme.a"} | expected


def test_name_that_a_registry_defines_leads_nowhere(two_methods: Project) -> None:
    registry = REGISTRY.format(marker="IS_REGISTRY = True") + "ALL = [A, B]\n"
    two_methods.write("acme/__init__.py", registry)
    two_methods.write("acme/c.py", "def f():\n    from acme import ALL\nclass C: ...\n")
    assert two_methods.closure("acme.c:C").keys() == {"acme.c"}


def test_method_defined_in_a_registry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "listed_here.py").write_text("IS_REGISTRY = True\nclass A: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PeftMethodsError, match=r"A is defined in listed_here.*another module"):
        code_closure(importlib.import_module("listed_here").A)


PLAIN = "class A:\n    def f(self, x):\n        return {'a': x + 1}\n"
SAME = '''"""A module."""
# a comment


class A:
    """A method."""

    def f(
        self,
        x,
    ):
        """Add."""
        return {  # another
            "a": (x + 1),
        }
        """no docstring, and no statement"""
'''


def test_docstrings_comments_and_formatting_change_nothing(project: Project) -> None:
    project.write("acme/a.py", PLAIN)
    assert not project.changed("acme.a:A", lambda: project.write("acme/a.py", SAME))


@pytest.mark.parametrize("other", ["x + 2", "x - 1", "x + 1.0", "x + True", "y + 1", "f'{x}'"])
def test_any_other_edit_changes_the_digest(other: str) -> None:
    texts = [PLAIN, PLAIN.replace("x + 1", other)]
    assert len({parse(ast.parse(text), "").digest for text in texts}) == 2


IMPORTS = {
    "import acme.b": True,
    "import acme.b as c": True,
    "from acme import b": True,
    "from acme.b import value": True,
    "from acme.b import *": True,
    "from . import b": True,
    "from .b import value": True,
    "from .. import b": False,  # beyond the top-level package
    "from ... import b": False,
    "import json": False,
    "def f():\n    import acme.b": True,
    "class C:\n    def f(self):\n        if self:\n            from .b import value": True,
    "try:\n    from acme import b\nexcept ImportError:\n    b = None": True,
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from acme import b": False,
    "import typing as t\nif t.TYPE_CHECKING:\n    if True:\n        import acme.b": False,
    "TYPE_CHECKING = 0\nif not TYPE_CHECKING:\n    from acme import b": True,
    "TYPE_CHECKING = 0\nif not TYPE_CHECKING:\n    pass\nelse:\n    from acme import b": False,
    "TYPE_CHECKING = 0\nif TYPE_CHECKING:\n    pass\nelse:\n    from acme import b": True,
    "import acme\ndef f():\n    return acme.b.value": True,
    "name = 'acme.b'": False,
}


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Write the modules of a package that no other test has, and return its name."""
    numbers = itertools.count()
    monkeypatch.syspath_prepend(tmp_path)

    def write(modules: dict[str, str]) -> str:
        name = f"acme_{abs(hash(tmp_path))}_{next(numbers)}"
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(text.replace("acme", name))
        importlib.invalidate_caches()
        return name

    return write


@pytest.mark.parametrize(("text", "is_followed"), IMPORTS.items())
def test_imports_are_followed_unless_only_type_checkers_read_them(
    on_path: Callable[[dict[str, str]], str], text: str, is_followed: bool
) -> None:
    name = on_path({"a": text, "b": "value = 1\n"})
    assert (f"{name}.b" in code_closure(f"{name}.a")) == is_followed
    assert f"{name}.a" not in sys.modules  # nothing is imported


def test_edit_of_a_function_level_import_changes_the_fingerprint(project: Project) -> None:
    project.write("acme/a.py", "class A:\n    def f(self):\n        from acme.deep import g\n")
    project.write("acme/deep/__init__.py", "from .low import g\n")
    project.write("acme/deep/low.py", "g = 1\n")
    assert project.changed("acme.a:A", lambda: project.write("acme/deep/low.py", "g = 2\n"))


def test_submodules_that_a_star_import_loads_are_covered(
    on_path: Callable[[dict[str, str]], str],
) -> None:
    name = on_path({"a": "from acme import *\n", "b": "", "__init__": "__all__ = ['b']\n"})
    assert code_closure(f"{name}.a").keys() == {name, f"{name}.a", f"{name}.b"}


STYLES = (
    "import acme.m{}",
    "from acme import m{}",
    "from . import m{}",
    "from .m{} import value",
    "def f{0}():\n    from acme.m{0} import value",
    "class C{0}:\n    import acme.m{0} as m",
)
NOT_FOLLOWED = "if TYPE_CHECKING:\n    from acme import m{}"


@given(
    edges=st.dictionaries(
        st.tuples(st.integers(0, 5), st.integers(0, 5)), st.sampled_from((*STYLES, NOT_FOLLOWED))
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_closure_is_what_can_be_reached_in_any_graph_of_imports(
    on_path: Callable[[dict[str, str]], str], edges: dict[tuple[int, int], str]
) -> None:
    """Circular imports and imports of itself too."""
    modules = {f"m{number}": "from typing import TYPE_CHECKING\n" for number in range(6)}
    for (start, end), style in edges.items():
        modules[f"m{start}"] += style.format(end) + "\n"
    name = on_path(modules)
    reached = {0}
    for _ in range(6):
        reached |= {b for (a, b), style in edges.items() if a in reached and style != NOT_FOLLOWED}
    expected = {name, *(f"{name}.m{number}" for number in reached)}
    assert code_closure(f"{name}.m0").keys() == expected


@given(st.sampled_from(sorted(PACKAGE.rglob("*.py"))))
@settings(deadline=None, max_examples=20)
def test_reformatted_source_has_the_same_digest(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    again = ast.parse("# a comment\n" + ast.unparse(tree).replace("\n", "\n\n  \n", 1))
    assert parse(again, "").digest == parse(tree, "").digest


def test_deeply_nested_source_is_parsed() -> None:
    assert parse(ast.parse("x = " + " + ".join(["1"] * 2000)), "").digest


# What is not the project's own Python source


def test_installed_libraries_are_not_followed_and_local_modules_are(project: Project) -> None:
    project.write("site-packages/library/__init__.py", "from library import own\n")
    project.write("site-packages/library/own.py", "")
    project.write("helpers.py", "import library\nimport further\n")
    project.write("further.py", "")
    project.write("acme/a.py", "import json, library, helpers, absent\nclass A: ...\n")
    project.write("absent.py", "")  # so that it can be imported here
    found = project.closure("acme", "helpers")
    assert found.keys() == {"acme", "helpers", "further"}
    assert project.closure("acme.a:A").keys() == {*found, "acme.a", "absent"}
    assert project.closure("library").keys() == {"library", "library.own"}  # a method's own package


@pytest.mark.parametrize("name", [f"fast{EXTENSION_SUFFIXES[0]}", "fast.py"])
def test_modules_that_cannot_be_parsed_count_by_their_bytes(project: Project, name: str) -> None:
    project.write("acme/a.py", "class A:\n    def f(self):\n        from acme import fast\n")
    project.write(f"acme/{name}", "not Python")
    assert "acme.fast" in project.closure("acme.a:A")
    assert project.changed("acme.a:A", lambda: project.write(f"acme/{name}", "nor this"))


def test_modules_in_namespaces_and_archives_are_covered(tmp_path: Path, forks: Forks) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("packed/__init__.py", "")
        archive.writestr("packed/a.py", "from space import b\nclass A: ...\n")
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "b.py").write_text("")
    paths = [str(tmp_path / "packed.zip"), str(tmp_path)]
    found = forks.run(CLOSURE.format(paths=paths, roots=["packed.a:A"]))
    assert found.keys() == {"packed", "packed.a", "space", "space.b"}


def test_unknown_module_is_refused() -> None:
    with pytest.raises(PeftMethodsError, match=r"'peft_methods\.nothing' cannot be found"):
        code_fingerprint("peft_methods.nothing")


# Scripts and notebooks

SCRIPT = """
import helpers
from helpers import Part
from peft_methods.runs.code_fingerprint import code_closure
RANK = 4
COUNT = 0
def used():
    return RANK
def unused():
    return 0
class A(Part):
    name = "mine"
    def f(self):
        from further import x
        return used(), helpers
if __name__ == "__main__":
    import json
    print(json.dumps(code_closure(A())))
"""


def test_method_in_a_script_is_covered_with_the_definitions_that_it_uses(project: Project) -> None:
    project.write("helpers.py", "class Part: ...\n")
    project.write("further.py", "x = 1\n")

    def run(text: str) -> dict[str, str]:
        project.write("script.py", text)
        command = [sys.executable, str(project.folder / "script.py")]
        environment = {"PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    before = run(SCRIPT)
    parts = {"__main__:A", "__main__:used", "__main__:used.RANK"}
    assert before.keys() == {*parts, "helpers", "further"}
    edits = {"RANK = 4": "RANK = 5", "return RANK": "return -RANK", "used(), ": "used(), 1, "}
    for old, new in edits.items():
        assert run(SCRIPT.replace(old, new)) != before
    assert run(SCRIPT.replace("return 0", "return 1").replace("COUNT = 0", "COUNT = 1")) == before


NOTEBOOK = """
import json, linecache, sys
sys.path.insert(0, {path!r})
from peft_methods.runs.code_fingerprint import code_closure
cell = {cell!r}
linecache.cache["<cell>"] = (len(cell), None, cell.splitlines(True), "<cell>")
exec(compile(cell, "<cell>", "exec"))
try:
    print(json.dumps(code_closure(A())))
except Exception as error:
    print(json.dumps(f"{{type(error).__name__}}: {{error}}"))
"""


def in_notebook(run: str) -> Any:
    return json.loads(python(NOTEBOOK.format(path=str(PACKAGE.parent), cell=run)))


def test_method_in_a_notebook_is_covered_through_its_functions() -> None:
    run = "class A:\n    rank = {}\n    @staticmethod\n    def f(x): return x\n"
    first, second = in_notebook(run.format(1)), in_notebook(run.format(2))
    assert first.keys() == second.keys() == {"__main__:A"}
    assert first != second
    assert in_notebook("# a comment\n\n" + run.format(1)) == first


def test_method_without_source_is_refused_by_name() -> None:
    message = in_notebook("class A:\n    name = 'mine'\n")
    assert message.startswith("PeftMethodsError: the source code of 'mine' (__main__.A) cannot be")
    assert "Move it to a .py file" in message


# Once a process, and any kind of root


def test_edit_during_a_session_changes_nothing(on_path: Callable[[dict[str, str]], str]) -> None:
    name = on_path({"a": "x = 1\n"})
    before = code_fingerprint(f"{name}.a")
    file = Path(sys.path[0]) / name / "a.py"
    file.write_text("x = 2\n")
    assert code_fingerprint(f"{name}.a") == before


def test_modules_classes_instances_and_functions_are_roots() -> None:
    module = importlib.import_module("peft_methods.methods.selective.full")
    full = METHODS["full"](learning_rate=1e-3)
    own = {code_fingerprint(root) for root in (module, module.__name__, full, type(full))}
    assert len(own) == 1
    assert code_closure(code_closure) == code_closure("peft_methods.runs.code_fingerprint")


# This package

PRESENTATION = {"analysis", "report", "cli", "api", "plugin"}
# Modules of `runs` that decide what runs when. No result depends on them.
ORGANISATION = {
    "executors", "scheduler", "experiment", "requests", "plan", "tuning", "progress", "tracking",
    "cost_model", "events", "timeouts", "limits", "scheduling", "recipe_checks",
}  # fmt: skip
ALL = """
assert code_closure.__code__.co_filename.startswith({folder!r})
print(json.dumps({{f"{{method}} {{engine}}": code_fingerprint(METHODS[method], ENGINES[engine], PIPELINE)
    for method in {methods!r} for engine in ENGINES}}))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""  # noqa: E501


class Copy:
    """A copy of this package that can be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "peft_methods")
        self.forks = Forks(folder)
        self._unedited = self.fingerprints()

    def fingerprints(self, *more: str) -> dict[str, str]:
        """By "method engine", of the usual methods and of more."""
        code = ALL.format(folder=str(self.folder), methods=(*CORE, *more))
        found: dict[str, str] = self.forks.run(code)
        return found

    def changed(self, name: str, old: str, new: str) -> set[str]:
        """Whose fingerprints another text in one file changes. The file is restored."""
        before, path = self._unedited, self.folder / "peft_methods" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        after = self.fingerprints()
        path.write_text(text, encoding="utf-8")
        return {run for run in before if before[run] != after[run]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    made = Copy(tmp_path_factory.mktemp("copy"))
    yield made
    made.forks.end()


EVERY = {f"{method} {engine}" for method in CORE for engine in ENGINES}
FUTURE = "from __future__ import annotations\n"


@pytest.mark.parametrize(
    "name", ["runs/pipeline", "profiling/profiler", "methods/base", "training/collate"]
)
def test_edit_of_the_pipeline_changes_the_fingerprint_of_every_run(copy: Copy, name: str) -> None:
    assert copy.changed(f"{name}.py", FUTURE, f"{FUTURE}EDITED = 1\n") == EVERY


@pytest.mark.parametrize(
    "name",
    [
        "report/text/comparison",
        "runs/progress/progress",
        "runs/tracking/tracker_process",
        "runs/scheduler",
        "runs/experiment",
        "runs/executors/local",
        "api",
        "plugin",
        "__main__",
    ],
)
def test_edit_of_presentation_changes_no_fingerprint(copy: Copy, name: str) -> None:
    assert copy.changed(f"{name}.py", FUTURE, f"{FUTURE}EDITED = 1\n") == set()


@pytest.mark.parametrize(
    ("name", "methods", "engines"),
    [
        ("methods/scaling/ia3.py", {"ia3"}, set(ENGINES)),
        ("methods/low_rank/lora.py", {"lora", "qlora"}, set(ENGINES)),
        ("methods/adapters/bottleneck.py", {"adapter", "adapter_fusion"}, set(ENGINES)),
        ("methods/adapters/modules.py", {"adapter", "adapter_fusion"}, set(ENGINES)),
        ("training/cuda_graphs/step.py", set(CORE), {"cuda_graphs"}),
        ("training/trainer/loop.py", set(CORE), set(ENGINES)),
    ],
)
def test_edit_of_a_method_or_engine_changes_its_own_runs(
    copy: Copy, name: str, methods: set[str], engines: set[str]
) -> None:
    expected = {f"{method} {engine}" for method in methods for engine in engines}
    assert copy.changed(name, FUTURE, f"{FUTURE}EDITED = 1\n") == expected


def test_one_more_method_here_changes_no_fingerprint(copy: Copy) -> None:
    more = copy.folder / "peft_methods/methods/mine.py"
    full = (copy.folder / "peft_methods/methods/selective/full.py").read_text(encoding="utf-8")
    more.write_text(full.replace('name="full"', 'name="mine"'), encoding="utf-8")
    after = copy.fingerprints("mine")
    more.unlink()
    assert {f"mine {engine}" for engine in ENGINES} < after.keys()
    assert {run: after[run] for run in EVERY} == copy.fingerprints()


def test_one_more_engine_here_changes_no_fingerprint(copy: Copy) -> None:
    new = "EDITED = 1\n_ALL: tuple"
    assert copy.changed("training/registry.py", "_ALL: tuple", new) == set()


def test_no_run_depends_on_presentation_or_organisation() -> None:
    for method, engine in itertools.product(CORE, ENGINES.values()):
        names = code_closure(METHODS[method], engine, PIPELINE)
        packages = {name.split(".")[1] for name in names if "." in name}
        assert not packages & PRESENTATION
        in_runs = {name.split(".")[2] for name in names if name.startswith("peft_methods.runs.")}
        assert not in_runs & ORGANISATION
        assert {"pipeline", "prepare", "outcome"} < in_runs
        assert {"data", "models", "tasks", "methods", "training", "profiling"} < packages
