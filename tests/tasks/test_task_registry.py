"""The registry of tasks: where they come from, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from wheel_builders import install, make_wheel, unpack

import peft_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.code_fingerprint import code_closure
from peft_methods.tasks import registry
from peft_methods.tasks.registry import TASKS, Registry, task_of
from peft_methods.utils.errors import OptionError

PACKAGE = Path(peft_methods.__file__).parent
GROUP = "peft_methods.tasks"
TASK = '''
from __future__ import annotations

from peft_methods.tasks.metrics import quality
from peft_methods.tasks.text_classification import TextClassification


class Loudness(TextClassification):
    """Loud and quiet texts."""

    name = "loudness"
    title = "Loudness"
    metrics = (quality("loud_share", "Loud share"), *TextClassification.metrics)
'''
LISTING = """
from peft_methods.profiling.metrics import METRICS
from peft_methods.tasks.registry import TASKS

for task in TASKS.values():
    print(task.name, *(metric.name for metric in task.metrics))
print(METRICS["loud_share"].format(0.5))
print(TASKS.problems)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for installed packages, on the path of this process and its children."""
    assert "text_classification" in TASKS  # loaded without that folder
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{PACKAGE.parent}")
    return folder


def test_a_task_of_an_installed_package_is_listed_with_its_metrics(
    site: Path, tmp_path: Path
) -> None:
    install(make_wheel(tmp_path, "loud", TASK, "loudness = loud:Loudness", GROUP), site)
    done = subprocess.run(
        [sys.executable, "-c", LISTING], capture_output=True, text=True, check=True
    )
    first, *others, formatted, problems = done.stdout.splitlines()
    assert first.startswith("text_classification accuracy macro_f1")
    assert any(line.startswith("loudness loud_share accuracy macro_f1") for line in others)
    assert formatted == "50.0 %"
    assert problems == "()"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("Loudness = 3", "3 is not a subclass of peft_methods.tasks.base.Task"),
        (TASK.replace('"loudness"', '"text_classification"'), "'text_classification' is taken"),
        (TASK.replace('"Loudness"', '""'), "Loudness has no title"),
        (
            TASK.replace('"loud_share", "Loud share"', '"macro_f1", "Another F1"'),
            "another task defines the metric 'macro_f1' differently",
        ),
        (
            "from peft_methods.tasks.base import Task\nclass Loudness(Task):\n    name = 'x'",
            "abstract",
        ),
    ],
    ids=["import", "type", "name", "title", "metric", "abstract"],
)
def test_a_broken_package_is_named_in_one_line(
    site: Path, tmp_path: Path, module: str, reason: str
) -> None:
    sys.modules.pop("broken_task", None)
    points = "mine = broken_task:Loudness"
    unpack(make_wheel(tmp_path, "broken_task", module, points, GROUP), site)
    found = Registry()
    assert list(found) == list(TASKS)
    (problem,) = found.problems
    assert problem.startswith("the package 'broken_task' brings a task 'mine' (broken_task:")
    assert reason in problem
    assert "\n" not in problem
    with pytest.raises(OptionError, match="the package 'broken_task' brings a task 'mine'"):
        found["mine"]
    sys.modules.pop("broken_task", None)


def test_task_of_a_recipe_is_text_classification_by_default() -> None:
    recipe = load_recipe("embedded")
    assert task_of(recipe).name == "text_classification"
    with pytest.raises(OptionError, match="unknown task 'mystery'"):
        task_of(replace(recipe, task="mystery"))


def test_the_registry_is_no_part_of_a_tasks_code() -> None:
    closure = code_closure(TASKS["text_classification"])
    assert "peft_methods.tasks.text_classification" in closure
    assert "peft_methods.tasks.class_labels" in closure
    assert registry.__name__ not in closure


def test_looking_for_tasks_imports_no_training_library() -> None:
    heavy = ("torch", "transformers", "datasets", "pandas", "sklearn", "scipy")
    code = (
        "import sys; from peft_methods.profiling.metrics import METRICS; list(METRICS); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"
