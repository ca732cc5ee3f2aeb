"""The HTML report shows estimates beside measurements, where records have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders import make_record, report_html, write_results
from peft_methods.analysis.comparison import Comparison
from peft_methods.report.html.estimates import estimates_table
from peft_methods.runs.predicted import Prediction
from peft_methods.runs.record import Record
from peft_methods.runs.store import Store

COST = Prediction(2.2 * 2**28, 2.0 * 2**28, 2.4 * 2**28, 1e9, 11.0, 9.0, 12.0, "probe")


def record(method: str, seed: int, prediction: Prediction | None, memory: float) -> Record:
    """A record of a run on a GPU."""
    made = make_record(method, seed)
    metrics = {**made.metrics, "peak_memory_bytes": memory}
    spec = replace(made.spec, device="cuda")
    return replace(made, spec=spec, metrics=metrics, predicted=prediction)


def test_table_has_estimated_and_measured_means() -> None:
    found = [
        record("lora", 0, COST, 2.0 * 2**28),
        record("lora", 1, COST, 3.0 * 2**28),
        record("full", 0, None, 2.0**29),
    ]
    rows = Comparison(tuple(found)).rows()
    by_method = {
        row.method: [one for one in found if one.method_name == row.method] for row in rows
    }
    table = estimates_table(rows, by_method)
    assert table is not None
    assert len(table.headings) == 6
    (line,) = table.lines
    assert [item.text for item in line.items][2] == "-12.0%"
    assert line.items[2].note == "1 of 2 runs outside the estimated range"
    assert line.items[5].text == "+10.0%"
    assert estimates_table(rows, {**by_method, "lora": by_method["full"]}) is None


def test_report_has_the_section_where_records_have_estimates(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", ("lora",), seeds=1)
    assert "embedded-1-estimates" not in report_html(tmp_path / "before", run)
    store = Store(run)
    (old,), _ = store.records()
    spec = replace(old.spec, device="cuda")
    (run / f"{old.fingerprint}.json").unlink()
    store.write(replace(old, spec=spec, predicted=COST, files={}))
    page = report_html(tmp_path / "after", run)
    assert 'id="embedded-1-estimates"' in page
    assert "Estimated peak" in page
