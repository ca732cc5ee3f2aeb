"""The commands and code of the documentation: parsed always, and run where a mark says so.

A mark stands in the line before a block: `<!-- run -->`, `<!-- run: slow -->` for what trains, or
`<!-- run: syntax -->` for Python that needs the results of other blocks.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import peft_methods
from builders import BENCHMARK, TASK, make_predictions
from peft_methods.analysis.checks import rule
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.methods import ApplyContext, Registry
from peft_methods.methods.registry import GROUP as METHOD_GROUP
from peft_methods.methods.selection import methods_named
from peft_methods.models import loading
from peft_methods.models.parameters import count_parameters
from peft_methods.profiling.gpus import gpus_here
from peft_methods.recipes.loading import find_recipe, load_recipe, shipped_recipes
from peft_methods.recipes.schema import ModelSpec
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.registry import GROUP as EXECUTOR_GROUP
from peft_methods.tasks.registry import GROUP as TASK_GROUP
from reference_docs.commands import command_names, help_of
from reference_docs.options import PREFIX, options

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<mark><!-- run(?:: (?P<kind>[a-z]+))? -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
KINDS = {"", "slow", "syntax", "check", "executor", "method", "part", "recipe", "suite", "task"}
PROGRAMS = ("pytest", "peft-methods")
QUICK = """seeds=1, settings=["data.train=64", "data.validation=32", "data.test=64",
    "budget.epochs=1", "expect.margin_over_majority=0.0"]"""  # in place of the whole recipe


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, text, and the kind of its mark (None without one)."""

    page: str
    language: str
    text: str
    run: str | None

    @property
    def name(self) -> str:
        """A short name for test ids."""
        return f"{self.page}:{self.text.strip().splitlines()[0][:40]}"


def blocks() -> Iterator[Block]:
    for path in PAGES:
        for found in FENCE.finditer(path.read_text(encoding="utf-8")):
            run = (found["kind"] or "") if found["mark"] else None
            name = path.relative_to(ROOT).as_posix()
            yield Block(name, found["language"], found["text"], run)


BLOCKS = list(blocks())


def written_in(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def the_block(kind: str, language: str = "python") -> Block:
    (found,) = (block for block in written_in(language) if block.run == kind)
    return found


def commands_of(block: Block) -> Iterator[list[str]]:
    """Yield the words of every command in a block that starts one of our programs."""
    if block.language == "yaml":
        jobs = yaml.safe_load(block.text)["jobs"].values()
        text = "\n".join(step["run"] for job in jobs for step in job["steps"] if "run" in step)
    else:
        text = block.text
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.removeprefix("$ ").split(" && "):
            words = shlex.split(part, comments=True)
            program = Path(words[0]).name if words else ""
            if program in PROGRAMS:
                yield [program, *words[1:]]


COMMANDS = [
    (block, words)
    for block in written_in("bash", "yaml", "text")
    if block.language != "text" or block.text.startswith("$ ")
    for words in commands_of(block)
]


def parser() -> argparse.ArgumentParser:
    """Return a parser with our options. Shortened names are not accepted."""
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in options():
        made._add_action(option)
    return made


def as_pytest(words: list[str]) -> list[str]:
    """Return the arguments of `peft-methods run` as those of pytest."""
    ours, _, others = " ".join(map(shlex.quote, words)).partition(" -- ")
    return [re.sub("^--", PREFIX, word) for word in shlex.split(ours)] + shlex.split(others)


def test_marks_are_known_and_every_python_block_is_run() -> None:
    assert {block.run for block in BLOCKS if block.run is not None} <= KINDS
    assert [block.name for block in written_in("python") if block.run is None] == []
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block.page}-{' '.join(w)}" for block, w in COMMANDS]
)
def test_commands_use_options_that_exist(block: Block, words: list[str]) -> None:
    program, *arguments = words
    if program == "peft-methods":
        command, *arguments = arguments
        if "run" not in command_names():
            pytest.skip("this version has only the commands that train nothing")
        assert command in command_names()
        if command != "run":
            known = help_of(command)
            assert [w for w in arguments if w.startswith("--") and w not in known] == []
            return
        ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
        _, stray = parser().parse_known_args(as_pytest(ours))
        assert stray == [], "a recipe is named by its option"
        arguments = as_pytest(arguments)
    found, others = parser().parse_known_args(arguments)
    assert [word for word in others if word.startswith(PREFIX)] == []
    methods = [name for value in found.peft_method for name in value.split(",")]
    assert [word for word in methods if not methods_named(word)] == []
    recipes = [name for value in found.peft_recipe for name in value.split(",")] or ["embedded"]
    for recipe in set(recipes) & set(shipped_recipes()):
        load_recipe(recipe, found.peft_set)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_options_that_exist(page: Path) -> None:
    known = {option.option_strings[-1] for option in options()}
    named = set(re.findall(rf"{PREFIX}[a-z]+(?:-[a-z]+)*", page.read_text(encoding="utf-8")))
    assert named <= known


@pytest.mark.parametrize("block", written_in("python"), ids=lambda block: block.name)
def test_python_calls_have_arguments_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and name in peft_methods.__all__:
            named: dict[str, Any] = {str(keyword.arg): None for keyword in node.keywords}
            inspect.signature(getattr(peft_methods, name)).bind(*node.args, **named)


@pytest.mark.parametrize("block", written_in("toml"), ids=lambda block: block.name)
def test_toml_blocks_are_recipes_parts_of_them_or_entry_points(
    block: Block, tmp_path: Path
) -> None:
    values = tomllib.loads(block.text)
    if block.run == "recipe":
        path = tmp_path / f"{values['name']}.toml"
        path.write_text(block.text, encoding="utf-8")
        assert load_recipe(str(path)).name == values["name"]
    elif block.run == "part":
        path = tmp_path / "whole.toml"
        own = Path(find_recipe("embedded")).read_text(encoding="utf-8")
        path.write_text(f"{own}\n{block.text}", encoding="utf-8")
        load_recipe(str(path))
    else:
        groups = set(values["project"]["entry-points"])
        assert groups <= {METHOD_GROUP, TASK_GROUP, EXECUTOR_GROUP}


def executed(block: Block, folder: Path) -> dict[str, Any]:
    """Execute a Python block as a file and return what it defines."""
    path = folder / "block.py"
    path.write_text(block.text, encoding="utf-8")
    return runpy.run_path(str(path))


def test_method_of_the_guide_trains_as_many_parameters_as_it_says(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    kind = executed(the_block("method"), tmp_path)["LayerNorms"]
    method = Registry([kind]).create("layer_norms", {}, "test", load_recipe("embedded"))
    base = loading.load(ModelSpec(str(tiny_models["bert"])), TASK.head, ("no", "yes"))
    context = ApplyContext(base.architecture, base.head, TASK.peft_type)
    model = method.apply(base.model, context)
    expected = method.expected_trainable(base.architecture)
    assert count_parameters(model, base.head).method == expected
    assert expected


def test_task_of_the_guide_measures_its_metric(tmp_path: Path) -> None:
    task = executed(the_block("task"), tmp_path)["TopTwo"]()
    predictions = make_predictions(0.6, seed=0)
    assert task.evaluate(predictions, ("no", "yes")).scores["top2_accuracy"] == 1.0
    splits = {
        "train": LabelledTexts(["x"] * 9, [0] * 5 + [1] * 3 + [2]),
        "test": LabelledTexts(["x"] * 10, [0] * 4 + [1] * 4 + [2] * 2),
    }
    trivial = task.trivial_baseline(splits, ("a", "b", "c"))
    assert trivial["top2_accuracy"] == pytest.approx(0.8)
    assert set(trivial) == {metric.name for metric in task.metrics}


def test_check_of_the_guide_finds_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "REGISTRY", {})
    check = executed(the_block("check"), tmp_path)["tiny_test_set"]
    ((evidence, _),) = check.check(ResultRow("LoRA", test_rows=20.0))
    assert evidence == "20 test rows"
    assert not list(check.check(ResultRow("LoRA", test_rows=500.0)))
    assert not list(check.check(ResultRow("LoRA")))


def test_executor_of_the_guide_has_one_slot(tmp_path: Path) -> None:
    make = executed(the_block("executor"), tmp_path)["make_executor"]
    executor = make([DeviceSet(threads=1)] * 3, tmp_path)
    try:
        assert executor.capacity.threads == 1
    finally:
        executor.close()


def test_benchmark_of_the_guide_is_collected_for_every_method(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(test_mine=the_block("").text)
    plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "--collect-only", "-q")
    done = pytester.runpytest_inprocess(
        *plain, f"--peft-recipe={tiny_recipe}", "--peft-method=lora,ia3"
    )
    assert done.ret == 0, done.stdout.str()
    done.stdout.fnmatch_lines(["*test_my_model?tiny-lora?", "*test_my_model?tiny-ia3?"])


def test_suite_of_the_guide_has_gpus_or_is_skipped(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=the_block("suite").text)
    plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "-p", "no:xdist")
    done = pytester.runpytest_subprocess(*plain, "-W", "error")
    there = min(2, len(gpus_here()))
    done.assert_outcomes(passed=there, skipped=2 - there)


def commands_marked(kind: str) -> list[Any]:
    return [
        pytest.param(words, id=" ".join(words))
        for block, words in COMMANDS
        if block.run == kind and words[0] == "pytest"
    ]


def run_command(words: list[str], folder: Path) -> None:
    more = ("-p", "no:cacheprovider", f"--peft-results={folder / 'results'}")
    done = subprocess.run(
        [sys.executable, "-m", *words, *more], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", commands_marked(""))
def test_quick_commands_run(words: list[str], tmp_path: Path) -> None:
    run_command(words, tmp_path)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("words", commands_marked("slow"))
def test_slow_commands_run(words: list[str], tmp_path: Path) -> None:
    assert BENCHMARK.exists()
    run_command(words, tmp_path)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize(
    "block",
    [block for block in written_in("python") if block.run == "slow"],
    ids=lambda block: block.name,
)
def test_slow_python_runs(block: Block, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.text.replace("seeds=1", QUICK)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LoRA" in done.stdout
