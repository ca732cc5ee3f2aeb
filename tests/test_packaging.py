"""The wheel holds every file that the package reads: recipes, presets, templates."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import peft_methods
from peft_methods.__main__ import main
from peft_methods.cli.run import BENCHMARK, CONFIG
from peft_methods.recipes.loading import shipped_recipes

PACKAGE = Path(peft_methods.__file__).parent
ROOT = PACKAGE.parent
DATA_FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in PACKAGE.rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc"}
)


def test_recipes_are_resources_of_the_package() -> None:
    folder = resources.files("peft_methods.recipes")
    names = {path.name for path in folder.iterdir() if path.name.endswith(".toml")}
    assert {f"{name}.toml" for name in shipped_recipes()} == names
    assert {"embedded.toml", "imdb_roberta.toml"} <= names


def test_data_files_are_of_the_expected_kinds() -> None:
    kinds = {Path(name).suffix or Path(name).name for name in DATA_FILES}
    assert kinds == {".toml", ".j2", ".js", ".css", ".typ", ".bib", ".ini", ".json", ".typed"}


def pinned(name: str) -> dict[str, Version]:
    """The versions in a constraints file, by package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (Requirement(line) for line in lines if line and not line.startswith("#"))
    return {one.name: Version(next(iter(one.specifier)).version) for one in found}


def test_oldest_versions_are_the_lower_bounds() -> None:
    """`tox -e drift` runs with them, so a bound that is too low is found."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = [Requirement(line) for line in tomllib.load(file)["project"]["dependencies"]]
    oldest, newest = pinned("constraints-oldest.txt"), pinned("constraints.txt")
    for one in needed:
        bound = Version(next(iter(one.specifier)).version)
        assert bound == oldest[one.name] <= newest[one.name], one.name


def test_console_script_is_the_command_of_the_package() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert scripts == {"peft-methods": "peft_methods.__main__:main"}
    assert main is pkgutil.resolve_name(scripts["peft-methods"])


def test_benchmark_is_defined_once_in_the_package() -> None:
    """The file of a clone only passes on the packaged test."""
    assert BENCHMARK.is_file()
    assert CONFIG.is_file()
    clone = ROOT / "benchmarks" / BENCHMARK.name
    assert "def test_" in BENCHMARK.read_text(encoding="utf-8")
    assert "def test_" not in clone.read_text(encoding="utf-8")


def test_package_declares_its_types_and_lists_what_it_offers() -> None:
    assert "peft_methods/py.typed" in DATA_FILES
    assert {"compare", "load_trained", "__version__"} <= set(dir(peft_methods))


def test_wheel_takes_the_whole_package() -> None:
    """Hatch takes every file of a package except ignored ones."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["peft_methods"]}
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    ignored = subprocess.run(
        ["git", "check-ignore", *DATA_FILES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="the build backend is not installed"
)
def test_built_wheel_contains_the_data_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert set(DATA_FILES) <= set(zipfile.ZipFile(wheel).namelist())
