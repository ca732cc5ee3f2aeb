"""Number formats of metrics."""

from __future__ import annotations

import pytest

from peft_methods.analysis.comparison import MetricSummary
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.charts.base import format_value
from peft_methods.report.html.tables import value_item
from peft_methods.report.paper.english import with_spread


@pytest.mark.parametrize(
    ("name", "mean", "deviation", "expected"),
    [
        ("train_seconds", 12.63, 0.04, "12.6 ± 0.0 s"),
        ("train_seconds", 34.2, 0.9, "34.2 ± 0.9 s"),
        ("train_seconds", 0.24, 0.049, "0.24 ± 0.05 s"),
        ("train_seconds", 0.9, 1.5, "0.90 ± 1.50 s"),
        ("accuracy", 0.942, 0.0012, "94.2 ± 0.1 %"),
        ("peak_memory_bytes", 2.0**31, 2.0**20, "2,048.0 ± 1.0 MiB"),
        ("samples_per_second", 1190.2, 0.9, "1,190.2 ± 0.9/s"),
        ("step_median_seconds", 0.0112, 0.0001, "11.2 ± 0.1 ms"),
        ("energy_joules", float("nan"), float("inf"), "nan ± inf J"),
    ],
)
def test_with_spread_uses_the_unit_and_decimals_of_the_mean(
    name: str, mean: float, deviation: float, expected: str
) -> None:
    assert METRICS[name].with_spread(mean, deviation) == expected


@pytest.mark.parametrize(
    ("figure", "mean", "spread"),
    [(MetricSummary(34.2, 0.9, 3), "34.2", "0.9"), (MetricSummary(0.24, 0.049, 3), "0.24", "0.05")],
)
def test_report_charts_and_paper_format_deviations_alike(
    figure: MetricSummary, mean: str, spread: str
) -> None:
    metric = METRICS["train_seconds"]
    item = value_item(figure, metric)
    assert (item.text, item.note) == (f"{mean} s", f"± {spread}")
    assert format_value(metric, figure) == f"{mean} ± {spread} s"
    assert with_spread("train_seconds", figure) == f"{mean}\u00a0±\u00a0{spread}\u00a0s"


def test_counts_have_no_deviation() -> None:
    figure = MetricSummary(148_610.0, 0.0, 3)
    assert format_value(METRICS["head_parameters"], figure) == "148,610"
    assert value_item(figure, METRICS["head_parameters"]).note == ""
    assert value_item(MetricSummary(80.0, 0.9, 3), METRICS["samples_per_second"]).note == "± 0.9"
