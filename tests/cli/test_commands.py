"""The command `peft-methods`: its help, its lists, and one line for every mistake."""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path

import pytest

from builders import CORE
from peft_methods import __version__
from peft_methods.__main__ import main
from peft_methods.analysis.checks import RULES
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.loading import load_recipe, shipped_recipes
from peft_methods.report.text.explanation import explanation
from peft_methods.utils.cache import cache_folder, cache_notice

COMMANDS = (
    *("run", "report", "audit", "explain", "recipes", "methods", "capabilities", "convert"),
    "cache",
)


def exit_code(*arguments: str) -> int:
    """Run a command and return its exit code, also if it exits by itself."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command 'rnu'. Did you mean 'run'? Commands: run, report, audit,"),
        (["explain", "V44"], "unknown check 'V44'. Did you mean 'V424'? Allowed: V101 to"),
        (["run", "--metod", "lora"], "unknown option '--metod'. Did you mean '--method'?"),
        (["run", "--peft-method=lora"], "unknown option '--peft-method'. Did you mean '--method'?"),
        (["run", "-x"], "unknown option '-x'. Options of pytest itself follow --."),
        (["run", "-k", "lora"], "unknown option '-k'. Options of pytest itself follow --."),
        (["run", "--pyargs"], "Options of pytest itself follow --."),
        (["cache", "-x"], "unknown option '-x'. See `peft-methods cache --help`."),
        (["run", "benchmarks"], "unexpected argument 'benchmarks'."),
        (["run", "--seeds"], "argument --seeds: expected one argument."),
        (["cache", "--clean"], "unknown option '--clean'. Did you mean '--clear'?"),
        (["audit"], "the following arguments are required: file."),
        (["audit", "x.csv", "--silence=V999"], "unknown rule 'V999'"),
    ],
)
def test_mistake_prints_one_line_with_the_nearest_name_and_exits_with_4(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("peft-methods")
    assert message in line


def test_help_lists_every_command_and_version_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("--help") == 0
    whole = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in whole
        assert exit_code(command, "--help") == 0
        assert f"usage: peft-methods {command}" in capsys.readouterr().out
    assert exit_code() == 4
    assert capsys.readouterr().out == whole
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"peft-methods {__version__}\n"


def test_explain_gives_why_evidence_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("explain", "v104") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("V104 (warning): Validation or test texts lie within train texts")
    assert "A part of what the split asks was trained on, so its accuracy is too high." in words
    assert "Evidence, with … for the values found: - … of the … texts lie within a train" in words
    assert "What to do: - parts of … were trained on; split by whole texts" in words


def test_explain_alone_lists_all_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("explain") == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_check_is_explained(name: str) -> None:
    text = explanation(name)
    assert RULES[name].title.partition(" ")[0] in text
    assert max(map(len, text.splitlines())) <= 100
    for title in ("Evidence, with … for the values found:\n", "What to do:\n"):
        items = re.split("\n?  - ", text.partition(title)[2].partition("\n\n")[0])[1:]
        assert items
        for item in items:
            words = {word for word in re.findall("[A-Za-z]+", item) if len(word) > 2}
            assert words - {"the", "others"}, f"{name}: {item!r} says nothing"
            assert not re.search(r"\w…|…\w", item), f"{name}: a part of {item!r} is missing"


@pytest.mark.parametrize("command", ["recipes", "methods"])
@pytest.mark.parametrize("width", [80, 120])
def test_recipes_and_methods_are_listed_within_the_width(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert exit_code(command) == 0
    lines = capsys.readouterr().out.splitlines()
    table = itertools.takewhile(bool, lines[2:])  # below it: methods that can be converted
    names = [line.split()[0] for line in table if not line.startswith(" ")]
    assert names == list(shipped_recipes() if command == "recipes" else METHODS)
    assert max(map(len, lines)) <= width


def test_list_of_recipes_keeps_what_its_help_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("recipes", "--help") == 0
    promised = capsys.readouterr().out
    assert exit_code("recipes") == 0
    shown = capsys.readouterr().out
    for word in ("model", "data", "task", "rows", "device", "methods"):
        assert word in promised
        assert shown.count(f"{word}: ") == len(shipped_recipes())
    for recipe in map(load_recipe, shipped_recipes()):
        assert f"{recipe.name} " in shown
        assert recipe.title in shown
        assert f"task: {recipe.task}" in shown
    assert all(name in shown for name in CORE)


def test_cache_shows_its_parts_and_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert exit_code("cache") == 0
    assert capsys.readouterr().out == f"{folder} is empty\n"
    (folder / "tokens" / "deep").mkdir(parents=True)
    (folder / "tokens" / "deep" / "rows.npz").write_bytes(bytes(1_500_000))
    (folder / "strange").write_bytes(bytes(12))
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(outside, target_is_directory=True)
    assert exit_code("cache") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{folder}:\n")
    assert "tokens             2 MB  tokenized data sets" in shown
    assert "strange            12 B\n" in shown
    assert exit_code("cache", "--clear") == 0
    assert capsys.readouterr().out.startswith(f"removed from {folder}:\n")
    assert list(folder.iterdir()) == []
    assert outside.is_dir()


def test_cache_says_in_one_line_that_another_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert exit_code("cache") == 0  # a Python warning would be an error
    captured = capsys.readouterr()
    assert captured.out.startswith(str(tmp_path / "peft-methods-cache-"))
    (line,) = captured.err.splitlines()
    assert line == cache_notice()
    assert "cannot be written" in line


def test_completion_knows_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra `completion` is not installed")
    assert exit_code("--print-completion", "bash") == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "--save-baseline"):
        assert word in script
