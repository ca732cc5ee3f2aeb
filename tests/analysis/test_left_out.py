"""A row with an error finding is neither recommended nor on the Pareto front, and is named."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from builders import CLEARLY_DIFFERENT, make_comparison, report_html, write_results
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.recommendations import recommend
from peft_methods.api import PrintableComparison
from peft_methods.report.charts import charts_of
from peft_methods.report.paper.document import document
from peft_methods.report.paper.study import studies_of
from peft_methods.report.text.comparison import markdown_table
from peft_methods.report.text.csv_table import csv_table
from peft_methods.runs.record import Record

TITLE = "Trainable parameters moved no more than weight decay moves them"


def with_error(comparison: PrintableComparison, *methods: str) -> PrintableComparison:
    """Return the comparison with an error finding (V202) for one seed of each of the methods."""

    def broken(record: Record) -> Record:
        if record.method_name not in methods or record.seed:
            return record
        return replace(record, evidence=replace(record.evidence, unmoved=("a.weight",)))

    return replace(comparison, records=tuple(map(broken, comparison.records)))


@pytest.fixture
def flawed() -> PrintableComparison:
    """A comparison whose otherwise best method, LoRA, has an error finding."""
    return with_error(make_comparison(CLEARLY_DIFFERENT), "lora")


def paper(comparison: Comparison) -> str:
    studies = studies_of(comparison, None)
    return document(studies, "paper", {study.recipe: [] for study in studies})


def test_findings_name_the_rows_they_concern(flawed: PrintableComparison) -> None:
    (error,) = [finding for finding in flawed.findings() if finding.severity == "error"]
    assert error.rows == {("embedded", "lora")}
    assert flawed.rankings["embedded"].left_out == {"lora": ("V202",)}
    assert make_comparison(CLEARLY_DIFFERENT).rankings["embedded"].left_out == {}


def test_row_with_an_error_is_not_recommended_nor_on_the_front(
    flawed: PrintableComparison,
) -> None:
    sound = recommend(make_comparison(CLEARLY_DIFFERENT))
    assert "lora" in {answer.method for answer in sound}
    answers = recommend(flawed)
    assert answers
    assert "lora" not in {name for answer in answers for name in (answer.method, answer.highest)}
    assert not any("LoRA" in answer.text for answer in answers)
    front = flawed.rankings["embedded"].pareto_optimal
    assert front == {"full": True, "head_only": True}
    (line,) = [
        one for one in csv.DictReader(io.StringIO(csv_table(flawed))) if one["method"] == "lora"
    ]
    assert line["on_front"] == ""


def test_silenced_error_excludes_no_row(flawed: PrintableComparison) -> None:
    silenced = replace(flawed, silenced=("V202",))
    assert silenced.rankings["embedded"].left_out == {}
    assert f"Silenced rules (not checked): V202 ({TITLE})." in silenced.table()


def test_error_of_a_prerequisite_run_concerns_the_method_that_needs_it() -> None:
    both = make_comparison({"adapter_fusion": ([0.9, 0.9], {}), "full": ([0.8, 0.8], {})})
    fusion = both.records[0].spec
    needed = replace(both.records[0], fingerprint="source", spec=fusion.prerequisites[0])
    broken = replace(needed, evidence=replace(needed.evidence, unmoved=("a.weight",)))
    comparison = replace(both, records=(*both.records, broken))
    assert comparison.rankings["embedded"].left_out == {"adapter_fusion": ("V202",)}
    assert recommend(comparison) == [], "one sound method is no choice"


def test_terminal_and_markdown_name_the_row_and_the_reason(flawed: PrintableComparison) -> None:
    line = (
        "LoRA: left out of the recommendations and the Pareto front because of an error: "
        f"V202 ({TITLE})."
    )
    assert line in flawed.table()
    assert "LoRA: left out of the recommendations" in markdown_table(flawed)
    lora = next(one for one in flawed.table().splitlines() if one.startswith("LoRA"))
    assert "*" not in lora, "it is not marked as the best"
    assert "90.7" in lora, "but its figures are shown"


def test_report_names_the_row_and_the_reason(flawed: PrintableComparison, tmp_path: Path) -> None:
    path = flawed.report(tmp_path)
    page = path.read_text(encoding="utf-8")
    reason = f"because of an error: V202 ({TITLE})."
    assert f"LoRA: left out of the recommendations and the Pareto front {reason}" in page
    assert "<small>error V202</small>" in page
    assert "On the Pareto front of accuracy, train time, peak memory, trainable: Full" in page


def test_charts_leave_the_row_out_of_the_front(flawed: PrintableComparison) -> None:
    charts = {chart.name: chart for chart in charts_of(flawed, "embedded")}
    described = charts["accuracy-against-time"].description
    assert "Left out of both fronts, for an error finding: LoRA." in described
    assert "LoRA (" not in described
    every = with_error(flawed, "full", "lora", "head_only")
    (chart,) = [one for one in charts_of(every, "embedded") if one.name == "accuracy-against-time"]
    assert "No method is a candidate for the Pareto front." in chart.description
    chart.draw()


def test_paper_names_the_row_and_the_reason_and_does_not_recommend_it(
    flawed: PrintableComparison,
) -> None:
    source = paper(flawed)
    conclusion = source[source.rindex("= Conclusion") :]
    assert "LoRA was excluded from the recommendations and the Pareto front" in conclusion
    assert "V202 \\(" in conclusion or "V202 (" in conclusion
    recommended = conclusion[conclusion.index("the recommendations are:") :]
    assert "LoRA" not in recommended
    assert "LoRA was excluded" in source[: source.index("= Introduction")], "the abstract too"
    trade = source[source.index("== Quality Against Cost") : source.index("== Threats")]
    assert "not separable from LoRA" not in trade
    assert "Pareto front" in source
    everything = paper(with_error(flawed, "full", "lora", "head_only"))
    assert "the recommendations are:" not in everything


def test_statements_do_not_end_in_two_stops(tmp_path: Path) -> None:
    page = report_html(tmp_path / "out", write_results(tmp_path / "r"), more=["--silence=V301"])
    assert "Silenced rules (not checked): V301 (" in page
    assert ".)." not in page
    assert "..)" not in page
