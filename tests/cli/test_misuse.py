"""Options of a session that cannot use them, and values that pytest misunderstands."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import BENCHMARK, error_line

PLUGIN = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider")


def test_options_without_a_benchmark_name_the_command(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")
    line = error_line(
        pytester.runpytest_inprocess(*PLUGIN, "--peft-recipe=embedded", "--peft-seeds", "2")
    )
    assert line == (
        "ERROR: --peft-recipe, --peft-seeds: no test that was collected takes the fixture "
        "`finetune`, so nothing would be compared. "
        "Run: peft-methods run --recipe=embedded --seeds 2"
    )


def test_options_in_an_empty_folder_name_the_command(pytester: pytest.Pytester) -> None:
    line = error_line(pytester.runpytest_inprocess(*PLUGIN, "--peft-fresh"))
    assert line.endswith("Run: peft-methods run --fresh")


def test_sessions_without_our_options_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=1)


def test_deselected_benchmarks_are_no_mistake(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    pytester.makepyfile(test_other="def test_other(): pass")
    chosen = (*PLUGIN, "--peft-method=lora", "-k", "other")
    pytester.runpytest_inprocess(*chosen).assert_outcomes(passed=1, deselected=1)


def test_unknown_path_is_reported_as_such(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*PLUGIN, "--peft-fresh", "no_such_test.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "file or directory not found: no_such_test.py" in result.stderr.str()


@pytest.mark.parametrize("settings", ["", "[pytest]\n"])
def test_blank_that_moves_the_root_folder_is_named(
    pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory, settings: str
) -> None:
    """pytest takes an existing path after a blank for a place of tests."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "pytest.ini").write_text(settings, encoding="utf-8")
    chosen = (*PLUGIN, "--collect-only", "--peft-method=lora")
    line = error_line(pytester.runpytest_inprocess(*chosen, "--peft-results", str(elsewhere)))
    assert f"Write --peft-results={elsewhere}." in line
    assert pytester.runpytest_inprocess(*chosen, f"--peft-results={elsewhere}").ret == 0


def test_blank_that_moves_nothing_is_allowed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\n")
    Path("results").mkdir()
    chosen = (*PLUGIN, "--collect-only", "--peft-method", "lora", "--peft-results", "results")
    assert pytester.runpytest_inprocess(*chosen).ret == 0
