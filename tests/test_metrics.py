"""How figures are written."""

from __future__ import annotations

import pytest

from peft_methods.metrics import METRICS


@pytest.mark.parametrize(
    ("name", "mean", "deviation", "written"),
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
def test_a_spread_has_the_unit_and_the_decimals_of_its_mean(name: str, mean: float, deviation: float, written: str) -> None:
    assert METRICS[name].with_spread(mean, deviation) == written
