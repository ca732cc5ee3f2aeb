"""A report of more runs than a browser can show lists a part of them, and says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import report_html, write_results
from peft_methods.report.html import length


def rows_of_runs(page: str) -> int:
    return len(re.findall(r"<td[^>]*>cell\d+</td>", page))


def test_report_of_many_runs_lists_the_first_of_each_method_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write_results(tmp_path / "results", ("full", "lora", "ia3"), seeds=4)
    whole = report_html(tmp_path / "whole", results)
    assert rows_of_runs(whole) == 12
    assert "This report lists" not in whole
    monkeypatch.setattr(length, "MOST_RUNS", 8)
    part = report_html(tmp_path / "part", results)
    assert rows_of_runs(part) == 6
    assert "This report lists 6 of 12 runs: of each section the first 2 of each method" in part
    assert "12 runs, 6 of them listed" in part
    assert "12 runs in 1 section" in part
    figures = [
        re.findall(r"<h3>Comparison</h3>.*?</section>", page, re.S) for page in (whole, part)
    ]
    assert len(figures[0]) == 1
    assert figures[0] == figures[1]


def test_report_of_as_many_runs_as_are_listed_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write_results(tmp_path / "results", ("full", "lora"), seeds=2)
    monkeypatch.setattr(length, "MOST_RUNS", 4)
    assert "This report lists" not in report_html(tmp_path / "out", results)
