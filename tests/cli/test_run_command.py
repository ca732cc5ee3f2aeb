"""`peft-methods run`: every option of the plugin, from any folder, without a clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peft_methods
from peft_methods.__main__ import main
from peft_methods.cli.arguments import add_options
from peft_methods.utils.checkout import clone

PACKAGE = Path(peft_methods.__file__).parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package alone, as a wheel would put it."""
    place = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, place / PACKAGE.name, ignore=ignored)
    return place


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in this folder with the installed package."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_run_offers_every_option_without_its_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    names = [name for group in parser._groups for one in group.options for name in one.names()]
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    for name in names:
        assert f"  --{name.removeprefix('--peft-')}" in shown
    assert "--peft-" not in shown


@pytest.mark.usefixtures("pytester")
def test_run_trains_where_it_is_called_and_reuses_records(
    tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    Path("conftest.py").write_text("raise RuntimeError('not of this comparison')", "utf-8")
    Path("pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n", "utf-8")
    chosen = ["run", f"--recipe={tiny_recipe}", "--method", "head_only", "--seeds", "1"]
    save = ["--benchmark-storage=saved", "--benchmark-save=one"]
    changes = ["--set", "budget.epochs=1", "--set=data.train=40"]
    assert main([*chosen, *changes, "--", "-q", *save]) == 0
    shown = capsys.readouterr().out
    assert "Head only" in shown
    assert "Choose columns with --columns." in shown
    assert "--peft-" not in shown
    (saved,) = Path("saved").rglob("*.json")
    (entry,) = json.loads(saved.read_text("utf-8"))["benchmarks"]
    assert entry["fullname"] == "test_finetune.py::test_finetune[tiny-head_only]"
    assert entry["extra_info"]["spec"]["recipe"]["data"]["train"] == 40
    assert len(list(Path(".peft/results").glob("*.json"))) == 1
    assert not Path(".pytest_cache").exists()
    assert main([*chosen, *changes]) == 0
    assert "reused from an earlier session" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method=loar"], "unknown method 'loar'. Did you mean 'lora'?"),
        (["--recipe=embeded"], "unknown recipe 'embeded'. Did you mean 'embedded'?"),
        (["--timeout=90"], "2h. Change it with --timeout."),
        (["--fresh", "--resume"], "--fresh trains everything again and --resume only missing"),
        (["--allow-missing"], "--allow-missing needs a baseline to compare with: add --baseline"),
    ],
)
@pytest.mark.usefixtures("pytester")
def test_mistake_ends_run_with_4_and_names_its_own_option(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments]) == 4
    assert message in capsys.readouterr().err


def test_package_alone_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    command = ("-m", "peft_methods", "run", "--method=lora,ia3", "--", "--collect-only", "-q")
    done = python(installed, tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_finetune.py::test_finetune[embedded-lora]" in done.stdout
    assert "test_finetune.py::test_finetune[embedded-ia3]" in done.stdout
    assert done.stderr == ""


def test_installed_package_keeps_baselines_in_the_working_folder(
    installed: Path, tmp_path: Path
) -> None:
    code = """
from pathlib import Path
from peft_methods.analysis.baseline import auto_path
from peft_methods.cli.command_text import pytest_command
from peft_methods.recipes.loading import find_recipe, load_recipe
print(auto_path(find_recipe("embedded"), load_recipe("embedded"), "Tesla T4"))
print(pytest_command([("recipe", "embedded"), ("set", "data.text=a name")]))
"""
    done = python(installed, tmp_path, "-c", code)
    path, command = done.stdout.splitlines()
    assert Path(path) == tmp_path / "benchmarks" / "baselines" / "tesla-t4" / "embedded.json"
    assert command == "peft-methods run --recipe embedded --set 'data.text=a name'"


@pytest.mark.parametrize("is_in_clone", [False, True])
def test_baselines_and_the_printed_command_belong_to_the_working_folder(
    is_in_clone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_methods.analysis.baseline import auto_path
    from peft_methods.cli.command_text import pytest_command
    from peft_methods.recipes.loading import find_recipe, load_recipe

    root = clone() if is_in_clone else tmp_path
    if root is None:
        pytest.skip("not a clone")
    monkeypatch.chdir(root)
    path = auto_path(find_recipe("embedded"), load_recipe("embedded"), "cpu")
    assert path == root / "benchmarks" / "baselines" / "cpu" / "embedded.json"
    assert pytest_command([]) == ("pytest benchmarks" if is_in_clone else "peft-methods run")
