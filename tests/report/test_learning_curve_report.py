"""A learning curve in the terminal, as CSV, in the HTML report, in charts and in the paper."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from curve_builders import RISING, SIZES, make_curve
from peft_methods.analysis.learning_curve import curves_of
from peft_methods.api import PrintableComparison
from peft_methods.cli.command_text import pytest_command
from peft_methods.report.charts import charts_across, png
from peft_methods.report.html.page import build_report, write_report
from peft_methods.report.paper.document import document
from peft_methods.report.paper.study import studies_of
from peft_methods.report.reproduce import reproduction
from peft_methods.report.text.csv_table import csv_table
from peft_methods.report.text.curve import forecast_text


@pytest.fixture(scope="module")
def comparison() -> PrintableComparison:
    return make_curve()


def test_terminal_has_the_main_table_of_the_largest_size_and_the_curve(
    comparison: PrintableComparison,
) -> None:
    shown = comparison.table(width=100)
    assert shown.count("From these figures alone") == 1
    assert "embedded-900: bundled:minilm" in shown
    assert "embedded-100: bundled:minilm" not in shown
    assert "embedded: accuracy in % with 95 % interval, by training rows" in shown
    assert "100 rows" in shown
    assert "- 900 rows: LoRA is better than Head only; Full fine-tuning is better than" in shown
    assert "embedded: what doubling 900 to 1,800 training rows probably brings" in shown
    assert "each size is a comparison of its own" in shown
    assert "inverse power law" in shown


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_table_of_sizes_fits_the_width(comparison: PrintableComparison, width: int) -> None:
    _, _, below = comparison.table(width=width).partition("by training rows")
    table = below.partition("- 100 rows")[0]
    assert table.count("Full fine-tuning") >= 1
    assert max(map(len, table.splitlines()[2:])) <= width


def test_two_sizes_have_no_forecast_and_say_why() -> None:
    two = make_curve({"full": RISING["full"][:2]}, SIZES[:2])
    shown = two.table()
    assert "- Full fine-tuning: no forecast: fewer than 3 sizes" in shown
    assert "inverse power law" not in shown


def test_csv_has_the_rows_of_each_size_and_the_forecast_at_the_largest(
    comparison: PrintableComparison,
) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_table(comparison))))
    sizes = {line["recipe"]: line["train_subset"] for line in lines}
    assert sizes == {f"embedded-{size}": str(size) for size in SIZES}
    for line in lines:
        is_main = line["recipe"] == "embedded-900"
        assert (line["doubled_rows"] == "1800") == is_main
        if is_main:
            ends = [float(line[f"doubled{part}"]) for part in ("_low", "", "_high")]
            assert ends == sorted(ends)


def test_html_report_has_the_curve_before_the_sections(
    comparison: PrintableComparison, tmp_path: Path
) -> None:
    report = replace(build_report(comparison, {}), charts="none")
    page = write_report(report, tmp_path, pytest_command).read_text("utf-8")
    assert page.index("Learning curve of embedded</h2>") < page.index('id="embedded-900-1"')
    assert page.index('id="embedded-900-1"') < page.index('id="embedded-100-1"')
    assert "What the next doubling brings" in page
    assert "--peft-curve 900" in page or "--curve 900" in page
    assert not (tmp_path / "charts").exists()


def test_charts_of_the_curve_and_of_the_main_size_are_written(tmp_path: Path) -> None:
    one = make_curve({"full": RISING["full"]})
    write_report(build_report(one, {}), tmp_path, pytest_command)
    drawn = {path.relative_to(tmp_path / "charts") for path in tmp_path.rglob("*.svg")}
    assert Path("embedded-900/learning-curve.svg") in drawn
    assert {path.parts[0] for path in drawn} == {"embedded-900"}


def test_chart_describes_every_figure(comparison: PrintableComparison) -> None:
    (chart,) = charts_across(comparison)
    (curve,) = curves_of(comparison)
    for method in RISING:
        assert forecast_text(curve, method) in chart.description
    assert png(chart).startswith(b"\x89PNG")
    assert chart in comparison.charts() or any(
        one.name == "learning-curve" for one in comparison.charts()
    )


def test_paper_is_about_the_largest_size_and_has_the_curve(
    comparison: PrintableComparison,
) -> None:
    (study,) = studies_of(comparison, None)
    assert study.recipe == "embedded-900"
    source = document([study], "paper", {study.recipe: []})
    assert "== Quality by Training Rows" in source
    assert "@t-curve-r1 gives the accuracy of every method at each size." in source
    assert "@hestness2017" in source
    assert "What doubling 900 training rows to 1,800 probably brings" in source


def test_row_of_a_shipped_recipe_is_reproduced_with_its_size(
    comparison: PrintableComparison,
) -> None:
    records = [r for r in comparison.records if r.recipe_name == "embedded-300"]
    found = reproduction([r for r in records if r.method_name == "lora"])
    assert not found.needs_file
    changed = {"recipe": "embedded", "method": "lora", "curve": "300", "seeds": "3"}
    assert dict(found.options) == changed


def test_threats_of_the_paper_name_the_learning_curve(comparison: PrintableComparison) -> None:
    (study,) = studies_of(comparison, None)
    source = document([study], "paper", {study.recipe: []})
    threats = source.partition("== Threats to Validity")[2].partition("\n= ")[0]
    assert (
        "The learning curve covers 100 to 900 training rows. All sizes have the same number of "
        "epochs, so small ones have fewer optimizer steps" in threats
    )
    assert "holds only if quality goes on by the fitted law, and for one doubling" in threats
    assert "other training rows" not in threats  # each seed draws its own
    (without,) = studies_of(make_curve({"full": RISING["full"][:2]}, SIZES[:2]), None)
    threats = document([without], "paper", {without.recipe: []})
    assert "The learning curve covers 100 to 300 training rows." in threats
    assert "goes on by the fitted law" not in threats
