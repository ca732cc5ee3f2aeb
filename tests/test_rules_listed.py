"""Rules are listed, silenced by id, and documented as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peft_methods.__main__ import main
from peft_methods.api import PrintableComparison
from peft_methods.report.rules import ABOUT, rules_markdown, rules_text
from peft_methods.validity import RULES, SCOPES

README = Path(__file__).parent.parent / "README.md"


def marked(name: str) -> str:
    """The fenced block that follows `<!-- name -->` in the README."""
    found = re.search(
        rf"<!-- {name} -->\n```\w+\n(.*?)\n```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


def test_the_readme_lists_every_rule_as_it_is() -> None:
    found = re.search(
        r"<!-- rules -->\n(.*?)\n<!-- /rules -->", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    assert found[1] == rules_markdown(), "put rules_markdown() between the marks"


def test_the_readmes_audit_says_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text(marked("audited"), encoding="utf-8")
    assert main(["audit", str(tmp_path / "results.csv")]) == 1
    assert capsys.readouterr().out.rstrip("\n") == marked("audit says")


def test_ids_say_what_a_rule_is_about_and_titles_are_sentences() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"V\d{3}", rule.id)
        assert rule.id[:2] in ABOUT
        assert rule.scope in SCOPES
        assert rule.title.endswith((".", ")"))
        assert all(part in rules_text() for part in (rule.id, rule.severity, rule.title))
    assert list(RULES) == sorted(RULES)


def test_pytest_lists_the_rules_and_does_nothing_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): assert False")
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", "--peft-rules")
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(r"V301 +error +row +The test accuracy is not above the majority class", out)
    assert "test_it" not in out


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("V105,V999", "there is no rule 'V999'. Did you mean 'V"),
        ("v30", "there is no rule 'V30'. Did you mean 'V30"),
        ("", "there is no rule ''."),
    ],
)
def test_silencing_what_is_no_rule_is_one_line_and_exit_4(
    pytester: pytest.Pytester, value: str, said: str
) -> None:
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", f"--peft-silence={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.stderr.lines if line.strip())
    assert f"--peft-silence {value!r}: {said}" in line


def test_a_silenced_error_fails_nothing_and_is_said(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    benchmark = Path(__file__).parent.parent / "benchmarks" / "test_finetune.py"
    pytester.makepyfile(test_finetune=benchmark.read_text(encoding="utf-8"))
    still = (
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
        *still,
    )
    told = pytester.runpytest_inprocess(
        *arguments, "--peft-silence=V301", "--peft-silence=v202,V204"
    )
    out = told.stdout.str()
    told.assert_outcomes(passed=1)
    assert "V301 error" not in out
    assert "Silenced rules (not checked): V301 (The test accuracy" in out
    assert re.search(
        r"V202 \(Trainable parameters did not move .*\), V204 \(The training loss", out
    )


def test_a_comparison_is_made_with_silenced_rules() -> None:
    assert PrintableComparison((), silenced=("V301",)).findings() == []
