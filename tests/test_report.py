"""The HTML report: what it says is in the records, what is foreign stays text, and the same records give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gate import base, records_of, tell  # noqa: F401  # fixtures
from test_gathering import record_of
from test_records_and_validity import make_record

from peft_methods import quality
from peft_methods.__main__ import main
from peft_methods.comparing import Comparison
from peft_methods.metrics import METRICS
from peft_methods.quality import Predictions
from peft_methods.records import Record
from peft_methods.report.html import report_of, write_report
from peft_methods.store import Store

SCRIPT = "<script>alert(1)</script>"


def judged(method: str, seed: int, right: float, **changes: Any) -> tuple[Record, Predictions]:
    """A record whose quality is that of these predictions, `right` of them correct."""
    rng, labels = np.random.default_rng([len(method), seed]), np.repeat([0, 1], 30)
    correct = rng.random(60) < right
    logits = np.eye(2, dtype=np.float32)[np.where(correct, labels, 1 - labels)]
    predictions = Predictions(logits, labels)
    found = asdict(quality.judge(predictions, ("bad", changes.pop("label", "good"))))
    record = record_of(method, seed, **changes)
    figures = {name: found[name] for name in ("accuracy", "macro_f1")}
    return replace(record, quality=found, metrics={**record.metrics, **figures}), predictions


def write_run(
    folder: Path, methods: Sequence[str] = ("full", "lora", "ia3"), seeds: int = 2, **changes: Any
) -> Path:
    """A folder of results."""
    store = Store(folder)
    store.prepare()
    for place, method in enumerate(methods):
        for seed in range(seeds):
            record, predictions = judged(method, seed, 0.6 + 0.15 * place, **changes)
            number = f"{place}{seed}{changes.get('torch', '')}".replace(".", "")
            store.write(replace(record, identity=f"cell{number}"), predictions)
    return folder


def report(folder: Path, *results: Path, charts: str = "none", more: Sequence[str] = ()) -> str:
    """The report's text, its exit code checked."""
    assert main(["report", *map(str, results), "-o", str(folder), f"--charts={charts}", *more]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_part_stands_in_the_report_and_says_what_the_records_say(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ("full", "lora"))
    page = report(tmp_path / "out", run, charts="few", more=["--silence", "V301"])
    for part in (
        "answers",
        "comparison",
        "findings",
        "charts",
        "classes",
        "figures",
        "again",
        "cells",
    ):
        assert f'id="embedded-1-{part}"' in page
    records, _ = Store(run).records()
    row = next(row for row in Comparison(tuple(records)).rows() if row.method == "lora")
    assert f'data-sort="{row.mean("accuracy")}"' in page
    assert METRICS["accuracy"].format(row.mean("accuracy")) in page
    assert "pytest benchmarks --peft-recipe embedded --peft-method lora --peft-seeds 2" in page
    assert "Silenced, so nobody looked: V301" in page
    assert all(record.identity in page for record in records)
    assert (tmp_path / "out" / "charts" / "embedded" / "accuracy.png").is_file()


def test_the_same_records_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ("lora",), seeds=1)
    files = [str(path) for path in sorted(run.glob("*.json"), reverse=True)]
    report(tmp_path / "one", run, charts="few")
    assert main(["report", *files, "-o", str(tmp_path / "two")]) == 0
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) > 5


def test_nothing_foreign_becomes_markup_and_nothing_leaves_the_page(tmp_path: Path) -> None:
    record, _ = judged("lora", 0, 0.9, label=SCRIPT)
    cell = {**record.cell, "method": {**record.cell["method"], "name": SCRIPT, "note": SCRIPT}}
    cell["recipe"] = {
        **cell["recipe"],
        "data": {**cell["recipe"]["data"], "source": f'"><img src=x onerror=alert(1)>{SCRIPT}'},
    }
    lost = replace(
        record_of("full"),
        cell={**record_of("full").cell, "recipe": cell["recipe"]},
        status="failed",
        message=SCRIPT,
    )
    records = (
        replace(
            record,
            cell=cell,
            message=SCRIPT,
            environment={**record.environment, "device_name": SCRIPT},
        ),
        lost,
    )
    write_report(report_of(Comparison(records, notes=(SCRIPT,)), {}), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)


def test_home_folders_stay_at_home(tmp_path: Path) -> None:
    record = record_of("lora")
    data = {**record.cell["recipe"]["data"], "source": "/home/someone/secret/reviews"}
    cell = {**record.cell, "recipe": {**record.cell["recipe"], "data": data}}
    failed = replace(
        record,
        cell=cell,
        status="failed",
        message="no file /home/someone/secret/x and /root/y",
        environment={},
    )
    write_report(report_of(Comparison((failed,)), {}), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "someone" not in page
    assert "/root" not in page
    assert "--peft-data reviews" in page
    assert "reviews is a local folder with the data: give the path of yours" in page
    assert "no file ~/secret/x and ~/y" in page


def test_runs_that_differ_are_sections_with_an_overview(tmp_path: Path) -> None:
    old, new = (
        write_run(tmp_path / "old", ("lora",), 1),
        write_run(tmp_path / "new", ("lora",), 1, torch="2.13.0", finished=9.0),
    )
    page = report(tmp_path / "out", old, new, charts="few")
    assert '<section id="overview">' in page
    assert "embedded (2)" in page
    assert "torch 2.11.0 → 2.13.0" in page
    assert (tmp_path / "out" / "charts-2" / "embedded" / "accuracy.svg").is_file()
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_many_sections_are_not_drawn_and_the_report_says_so(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / str(number), ("lora",), 1, torch=f"2.{number}", finished=float(number + 1)
        )
        for number in range(4)
    ]
    assert "Charts are drawn for up to 3 sections and there are 4" in report(
        tmp_path / "out", *runs, charts="few"
    )
    assert not (tmp_path / "out" / "charts").exists()


def test_attempts_that_all_failed_are_named_and_stand_in_no_comparison(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    good = Store(run).read(run / "cell00.json")
    recipe = {**good.cell["recipe"], "data": {**good.cell["recipe"]["data"], "source": "/slip"}}
    failed = replace(
        good, cell={**good.cell, "recipe": recipe}, status="failed", identity="slip", message="there is no folder /slip.",
        metrics={}, environment={}, quality=None, finished=0.5,
    )  # fmt: skip
    Store(run).write(failed)
    page = report(tmp_path / "out", run)
    assert (
        "Left out, since no cell of it ended well: embedded, Full fine-tuning: there is no folder /slip."
        in page
    )
    assert "embedded (2)" not in page
    Store(tmp_path / "alone").prepare()
    Store(tmp_path / "alone").write(failed)
    assert "there is no folder /slip." in report(tmp_path / "out", tmp_path / "alone")


def test_what_cannot_be_read_is_named_and_the_rest_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", ("full", "lora"))
    (run / "broken.json").write_text("{", encoding="utf-8")
    (run / "cell00.npz").write_bytes(b"no archive")
    report(tmp_path / "out", run, tmp_path / "nowhere")
    said = capsys.readouterr().err
    assert "broken.json is no record" in said
    assert "nowhere cannot be read: No such file or directory" in said
    assert said.count("cell00.npz holds no predictions that can be read") == 1


def test_nothing_to_report_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(
        "python -m peft_methods: no records of a comparison in what was given."
    )
    assert not (tmp_path / "out" / "report.html").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("pytester")
def test_a_run_with_failed_cells_leaves_its_report(tell: Callable[..., pytest.RunResult]) -> None:  # noqa: F811
    failed = replace(
        make_record("bitfit"),
        status="oom",
        message="no room",
        metrics={},
        environment={},
        identity="oom",
    )
    result = tell([*records_of("lora"), failed], "--peft-report=out")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["written: out*report.html"])
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "BitFit: oom: no room" in page
    assert "baseline" not in re.findall(r'id="embedded-1-(\w+)"', page)


def test_what_changed_against_the_baseline(base: Callable[..., pytest.RunResult]) -> None:  # noqa: F811
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
        "1.998pp",
        "worse",
    ]
    assert "not worse" in part
    assert "regression check: embedded-lora: accuracy fell from 90.0 % to 70.0 %" in part


def test_a_report_that_cannot_be_is_refused_before_training(
    tell: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:  # noqa: F811
    Path("taken").write_text("", encoding="utf-8")
    refused = tell(records_of("lora"), "--peft-report=taken")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--peft-report 'taken' is a file; give a folder.*"])
    monkeypatch.setattr("peft_methods.report.needs.NEEDED", {"no_such_module": "Jinja2"})
    lacking = tell(records_of("lora"), "--peft-report=out")
    assert lacking.ret == pytest.ExitCode.USAGE_ERROR
    lacking.stderr.fnmatch_lines(
        ["*--peft-report needs Jinja2: pip install 'peft-methods?report?'.*"]
    )
