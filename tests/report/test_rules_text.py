"""Rules can be listed and silenced by id, and the documentation shows what the audit prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peft_methods.__main__ import main
from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import SCOPES
from peft_methods.api import PrintableComparison
from peft_methods.report.text.rules import RULE_TOPICS, rules_text

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "audit.md"


def fenced_block(name: str) -> str:
    """The fenced block that follows `<!-- name -->` in the guide to audits."""
    found = re.search(
        rf"<!-- {name} -->\n```\w+\n(.*?)\n```", GUIDE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


def test_guide_shows_the_actual_output_of_the_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text(fenced_block("audited"), encoding="utf-8")
    assert main(["audit", str(tmp_path / "results.csv")]) == 1
    assert capsys.readouterr().out.rstrip("\n") == fenced_block("audit says")


def test_rule_ids_match_their_topic_and_titles_are_sentences() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"V\d{3}", rule.id)
        assert rule.id[:2] in RULE_TOPICS
        assert rule.scope in SCOPES
        assert rule.title.endswith((".", ")"))
        text = rules_text("--silence")
        assert all(part in text for part in (rule.id, rule.severity, rule.title))
    assert list(RULES) == sorted(RULES)


def test_pytest_lists_the_rules_and_runs_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): assert False")
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", "--peft-rules")
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(r"V301 +error +row +The model is no better than a trivial predictor", out)
    assert "test_it" not in out
    assert "To skip rules: --peft-silence V105,V301;" in out


@pytest.mark.parametrize("command", [["explain"], ["run", "--rules"]])
@pytest.mark.usefixtures("pytester")
def test_commands_name_their_own_option_to_skip_rules(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    assert " --silence V105,V301;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("V105,V999", "unknown rule 'V999'. Did you mean 'V"),
        ("v30", "unknown rule 'V30'. Did you mean 'V30"),
        ("", "unknown rule ''. Allowed: V101 to V1"),
    ],
)
def test_silencing_an_unknown_rule_exits_with_4_and_one_line(
    pytester: pytest.Pytester, value: str, message: str
) -> None:
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", f"--peft-silence={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.stderr.lines if line.strip())
    assert f"silence {value!r}: {message}" in line
    assert line.endswith("Change it with --peft-silence.")


def test_silenced_error_fails_no_benchmark_and_is_listed(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    benchmark = Path(__file__).parents[2] / "benchmarks" / "test_finetune.py"
    pytester.makepyfile(test_finetune=benchmark.read_text(encoding="utf-8"))
    untrained = (
        "--peft-method=full",
        "--peft-seeds=1",
        "--peft-set=methods.full.learning_rate=1e-9",
        "--peft-set=expect.margin_over_majority=0.3",
    )
    arguments = (
        "-p",
        "peft_methods.plugin",
        "-p",
        "no:cacheprovider",
        f"--peft-recipe={tiny_recipe}",
        *untrained,
    )
    result = pytester.runpytest_inprocess(
        *arguments, "--peft-silence=V301", "--peft-silence=v202,V204,V208"
    )
    out = result.stdout.str()
    result.assert_outcomes(passed=1)
    assert "V301 error" not in out
    assert re.search(r"Silenced.*: V301 \(The model is no better", out)
    assert re.search(
        r"V202 \(Trainable parameters moved no more .*\), V204 \(The training loss", out
    )


def test_printable_comparison_accepts_silenced_rules() -> None:
    assert PrintableComparison((), silenced=("V301",)).findings() == []
