"""The HTML report: it matches the records, escapes untrusted text, and is deterministic."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import (
    CORE,
    SCRIPT,
    changed_record,
    evaluated_record,
    make_comparison,
    make_record,
    records_of,
    report_html,
    unregistered,
    with_changed_specs,
    with_settings,
    write_results,
)
from chart_builders import comparison_of, register
from peft_methods.__main__ import main
from peft_methods.analysis.comparison import Comparison
from peft_methods.cli.command_text import pytest_command
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.html.page import build_report, write_report
from peft_methods.report.html.tables import comparison_table
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.runs.store import Store


def test_report_contains_every_part_and_matches_the_records(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", ("full", "lora"))
    page = report_html(tmp_path / "out", run, charts="few", more=["--silence", "V301"])
    for part in (
        "answers",
        "comparison",
        "findings",
        "charts",
        "views",
        "metrics",
        "reproduce",
        "runs",
    ):
        assert f'id="embedded-1-{part}"' in page
    records, _ = Store(run).records()
    row = next(row for row in Comparison(tuple(records)).rows() if row.method == "lora")
    assert f'data-sort="{row.mean("accuracy")}"' in page
    assert METRICS["accuracy"].format(row.mean("accuracy")) in page
    assert "pytest benchmarks --peft-recipe embedded --peft-method lora --peft-seeds 2" in page
    assert "Silenced rules (not checked): V301" in page
    assert all(record.fingerprint in page for record in records)
    assert (tmp_path / "out" / "charts" / "embedded" / "accuracy.png").is_file()


def test_report_is_byte_identical_for_the_same_records_at_any_path(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", ("lora",), seeds=1)
    files = [str(path) for path in sorted(run.glob("*.json"), reverse=True)]
    report_html(tmp_path / "one", run, charts="few")
    assert main(["report", *files, "-o", str(tmp_path / "two")]) == 0
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) > 5


def test_report_escapes_untrusted_text_and_links_to_no_other_page(tmp_path: Path) -> None:
    record, _ = evaluated_record("lora", 0, 0.9, label=SCRIPT)
    source = ("data.source", f'"><img src=x onerror=alert(1)>{SCRIPT}')
    run = unregistered(SCRIPT, with_settings(record.spec, source), note=SCRIPT)
    lost = replace(
        changed_record("full"),
        spec=with_settings(changed_record("full").spec, source),
        status="failed",
        message=SCRIPT,
    )
    records = (
        replace(
            record,
            spec=run,
            message=SCRIPT,
            environment={**record.environment, "device_name": SCRIPT},
        ),
        lost,
    )
    write_report(build_report(Comparison(records, notes=(SCRIPT,)), {}), tmp_path, pytest_command)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)


def test_report_hides_home_folders(tmp_path: Path) -> None:
    record = changed_record("lora")
    run = with_settings(record.spec, ("data.source", "/home/someone/secret/reviews"))
    failed = replace(
        record,
        spec=run,
        status="failed",
        message="no file /home/someone/secret/x and /root/y",
        environment={},
    )
    write_report(build_report(Comparison((failed,)), {}), tmp_path, pytest_command)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "someone" not in page
    assert "/root" not in page
    assert "--peft-data reviews" in page
    assert "reviews is a local folder with the data: replace it by the path of your copy" in page
    assert "no file ~/secret/x and ~/y" in page


def test_report_has_an_overview_if_sessions_differ(tmp_path: Path) -> None:
    old, new = (
        write_results(tmp_path / "old", ("lora",), 1),
        write_results(tmp_path / "new", ("lora",), 1, torch="2.13.0", finished=9.0),
    )
    page = report_html(tmp_path / "out", old, new, charts="few")
    assert '<section id="overview">' in page
    assert "embedded (2)" in page
    assert "torch 2.11.0 → 2.13.0" in page
    assert "Differences from the recipe" in page
    assert (tmp_path / "out" / "charts-2" / "embedded" / "accuracy.svg").is_file()
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_overview_has_no_column_without_differences(tmp_path: Path) -> None:
    one, other = (make_comparison({name: ([0.8, 0.9], {})}) for name in ("lora", "ia3"))
    named = with_changed_specs(other, ("name", "second"))
    both = Comparison((*one.records, *named.records))
    write_report(build_report(both, {}), tmp_path, pytest_command)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="overview">' in page
    assert "Differences from the recipe" not in page


def test_report_omits_charts_for_many_sections_and_states_it(tmp_path: Path) -> None:
    runs = [
        write_results(
            tmp_path / str(number), ("lora",), 1, torch=f"2.{number}", finished=float(number + 1)
        )
        for number in range(4)
    ]
    assert "Charts are drawn for up to 3 sections; this report has 4." in report_html(
        tmp_path / "out", *runs, charts="few"
    )
    assert not (tmp_path / "out" / "charts").exists()


def test_report_excludes_settings_whose_runs_all_failed_and_names_them(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run")
    good = Store(run).read(run / "cell00.json")
    failed = replace(
        good,
        spec=with_settings(good.spec, ("data.source", "/slip")),
        status="failed",
        fingerprint="slip",
        message="there is no folder /slip.",
        metrics={},
        environment={},
        quality=None,
        finished=0.5,
    )
    Store(run).write(failed)
    page = report_html(tmp_path / "out", run)
    assert (
        "Left out, since all its runs failed: embedded, Full fine-tuning: there is no folder /slip."
        in page
    )
    assert "embedded (2)" not in page
    Store(tmp_path / "alone").prepare()
    Store(tmp_path / "alone").write(failed)
    assert "there is no folder /slip." in report_html(tmp_path / "out", tmp_path / "alone")


def test_report_names_unreadable_files_and_uses_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_results(tmp_path / "run", ("full", "lora"))
    (run / "broken.json").write_text("{", encoding="utf-8")
    (run / "cell00.npz").write_bytes(b"no archive")
    report_html(tmp_path / "out", run, tmp_path / "nowhere")
    errors = capsys.readouterr().err
    assert "broken.json is not a valid record" in errors
    assert "nowhere cannot be read: No such file or directory" in errors
    assert errors.count("cell00.npz has changed since it was written") == 1


def test_report_without_records_prints_one_line_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("peft-methods: the given results hold no records of a comparison.")
    assert not (tmp_path / "out" / "report.html").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "file")]) == 4
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("pytester")
def test_a_run_with_failed_cells_leaves_its_report(tell: Callable[..., pytest.RunResult]) -> None:
    failed = replace(
        make_record("bitfit"),
        status="oom",
        message="no room",
        metrics={},
        environment={},
        fingerprint="oom",
    )
    result = tell([*records_of("lora"), failed], "--peft-report=out")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["written: out*report.html"])
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "BitFit: oom: no room" in page
    assert "baseline" not in re.findall(r'id="embedded-1-(\w+)"', page)


def test_what_changed_against_the_baseline(base: Callable[..., pytest.RunResult]) -> None:
    before = [record for method in ("lora", "ia3") for record in records_of(method)]
    now = [*records_of("lora", accuracy=(0.7, 0.71, 0.69)), *records_of("ia3")]
    assert base(before, now, "--peft-report=out").ret == 1
    page = Path("out/report.html").read_text(encoding="utf-8")
    part = page[page.index('id="embedded-1-baseline"') : page.index('id="embedded-1-findings"')]
    row = re.sub(
        r"<[^>]+>", " ", next(row for row in part.split("<tr>") if 'data-sort="LoRA"' in row)
    ).split()
    assert row[:10] == [
        "LoRA",
        "Accuracy",
        "90.0",
        "%",
        "70.0",
        "%",
        "20pp",
        "1pp",
        "2.499pp",
        "worse",
    ]
    assert "not worse" in part
    assert "regression check: embedded-lora: accuracy fell from 90.0 % to 70.0 %" in part


def test_a_report_that_cannot_be_is_refused_before_training(
    tell: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken").write_text("", encoding="utf-8")
    refused = tell(records_of("lora"), "--peft-report=taken")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*report 'taken' is a file; give a folder. Change it with --peft-report."]
    )
    monkeypatch.setattr(
        "peft_methods.report.requirements.REQUIRED_LIBRARIES", {"no_such_module": "Jinja2"}
    )
    lacking = tell(records_of("lora"), "--peft-report=out")
    assert lacking.ret == pytest.ExitCode.USAGE_ERROR
    lacking.stderr.fnmatch_lines(["*a report needs Jinja2: pip install 'peft-methods?report?'.*"])


def test_tables_of_many_methods_are_parted_by_family(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A part is folded and sorted by the page's script; without it all rows are shown."""
    few, many = comparison_of(CORE), comparison_of(register(monkeypatch, 24))
    for number, comparison in enumerate((few, many)):
        rows = comparison.rows()
        table = comparison_table(rows, comparison.rankings[rows[0].recipe])
        titles = [title for title, _ in table.bodies]
        shown = [line.title for _, lines in table.bodies for line in lines]
        assert sorted(shown) == sorted(row.title for row in rows)
        assert (titles == [""]) == (number == 0)
        text = terminal_table(comparison)
        assert ("Low rank (" in text) == (number == 1)
        assert ("Low rank (" in markdown_table(comparison)) == (number == 1)
