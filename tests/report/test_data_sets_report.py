"""The summary over several recipes in the terminal, the HTML report, the chart and the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_set_builders import THREE, make_recipes
from peft_methods.api import PrintableComparison
from peft_methods.cli.command_text import pytest_command
from peft_methods.report.charts import charts_across, png
from peft_methods.report.html.page import build_report, write_report
from peft_methods.report.paper.document import document
from peft_methods.report.paper.study import studies_of


@pytest.fixture(scope="module")
def comparison() -> PrintableComparison:
    films = {**THREE["films"], "bitfit": [0.8, 0.81, 0.8]}
    return make_recipes({**THREE, "films": films, "zines": THREE["goods"]})


def test_terminal_has_the_summary_after_the_recipes(comparison: PrintableComparison) -> None:
    shown = comparison.table(width=100)
    assert shown.index("verse: bundled:minilm") < shown.index("4 recipes together: films, goods")
    assert "Better than" in shown
    assert "- BitFit is not summarised: no result on goods, verse, zines" in shown
    assert "IQM: interquartile mean" in shown
    alone = make_recipes({"films": THREE["films"]}).table()
    assert "recipes together" not in alone
    assert "interquartile" not in alone


def test_html_report_has_the_summary(comparison: PrintableComparison, tmp_path: Path) -> None:
    page = write_report(build_report(comparison, {}), tmp_path, pytest_command).read_text("utf-8")
    assert 'id="summary"' in page
    assert "BitFit is not summarised: no result on goods, verse, zines" in page
    assert "Probability that a run is better" in page
    drawn = [path.name for path in (tmp_path / "charts").rglob("*.svg")]
    assert drawn == ["profiles.svg"]  # there are too many sections to draw theirs


def test_chart_names_every_mean(comparison: PrintableComparison) -> None:
    (chart,) = charts_across(comparison)
    summary = comparison.data_sets()
    assert summary is not None
    for one in summary.methods.values():
        assert f"{one.iqm:.3f}" in chart.description
    assert png(chart).startswith(b"\x89PNG")


def test_paper_has_the_summary(comparison: PrintableComparison) -> None:
    studies = studies_of(comparison, None)
    source = document(studies, "paper", {study.recipe: [] for study in studies})
    assert "== All Recipes Together" in source
    assert "@agarwal2021rliable" in source
    assert "BitFit is not summarised: no result on goods, verse, zines." in source
