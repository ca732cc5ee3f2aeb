"""Aggregation of runs to rows, and the comparison table."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_record, missing, random_record, with_accuracy
from peft_methods.analysis.comparison import Comparison, summarize
from peft_methods.api import PrintableComparison
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.report.text.costs import cost_tables
from peft_methods.report.text.csv_table import csv_table
from peft_methods.report.text.layout import Layout


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_summarize_mean_is_in_range_and_spread_is_not_negative(
    values: list[float],
) -> None:
    figure = summarize("accuracy", with_accuracy("lora", *values))
    assert figure is not None
    assert min(values) - 1e-12 <= figure.mean <= max(values) + 1e-12
    assert (figure.deviation is None) == (len(values) == 1)
    assert figure.deviation is None or figure.deviation >= 0


def test_summarize_ignores_missing_and_nan_values() -> None:
    records = [
        *with_accuracy("lora", 0.8),
        *with_accuracy("lora", float("nan")),
        make_record(metrics={"accuracy": None}),
    ]
    figure = summarize("accuracy", records)
    assert figure is not None
    assert (figure.mean, figure.count) == (0.8, 1)
    assert summarize("energy_joules", records) is None


def test_rows_follow_registry_order_and_omit_prerequisite_runs() -> None:
    records = [
        *with_accuracy("ia3", 0.7),
        *with_accuracy("full", 0.8),
        make_record("adapter", spec=replace(make_record("adapter").spec, role="prerequisite")),
    ]
    assert [row.method for row in Comparison(tuple(records)).rows()] == ["full", "ia3"]


def test_terminal_table_marks_the_best_and_describes_the_setup() -> None:
    records = [
        *with_accuracy("full", 0.70, 0.72, train_seconds=30.0),
        *with_accuracy("lora", 0.80, 0.82, train_seconds=12.0),
    ]
    text = terminal_table(Comparison(tuple(records), ("a note",)))
    full, lora = (
        next(line for line in text.splitlines() if line.startswith(name))
        for name in ("Full", "LoRA")
    )
    assert "71.0 ± 1.4  " in full
    assert "81.0 ± 1.4 *" in lora
    assert "12.0 ± 0.0 s *" in lora
    assert "bundled:movie_reviews, 400 train / 150 validation / 500 test, 2 epochs, batch 8" in text
    assert "seeds 0, 1; a cpu, 2 threads" in text
    assert text.endswith("a note")
    assert "One seed" not in text


def test_terminal_table_shows_two_decimals_for_times_below_one_second() -> None:
    records = [
        *with_accuracy("full", 0.7, train_seconds=0.262),
        *with_accuracy("lora", 0.7, train_seconds=2.0),
    ]
    text = terminal_table(Comparison(tuple(records)))
    assert "0.26 s *" in text
    assert "2.00 s" in text


def test_cost_table_reserved_is_the_memory_held_in_training_with_both_engines() -> None:
    sizes = {"step_median_seconds": 0.01, "train_reserved_bytes": 3 * 2.0**20}
    captured = make_record("lora").metrics | sizes | {"engine_reserved_bytes": 5 * 2.0**20}
    eager = make_record("full").metrics | sizes
    (table,) = cost_tables(
        Comparison(
            (make_record("full", metrics=eager), make_record("lora", metrics=captured))
        ).rows(),
        Layout(),
    )
    full, lora = table.splitlines()[-2:]
    assert "3.0 MiB" in full
    assert "5.0 MiB" in lora
    assert "3.0 MiB" not in lora


def test_terminal_table_states_that_one_seed_has_no_spread() -> None:
    text = terminal_table(Comparison(tuple(with_accuracy("lora", 0.8))))
    assert "One seed: no spread" in text
    assert "±" not in text.split("Accuracy and F1")[0]


def test_terminal_table_lists_skipped_and_failed_runs_with_their_reason() -> None:
    records = [
        *with_accuracy("full", 0.8),
        missing("qlora", "skipped", "needs bitsandbytes"),
        missing("lora", "oom", "tried to allocate 9 GiB"),
        *with_accuracy("ia3", 0.7),
        missing("ia3", "crashed", "killed", seed=1),
    ]
    text = terminal_table(Comparison(tuple(records)))
    assert "QLoRA: skipped: needs bitsandbytes" in text
    assert "LoRA: oom: tried to allocate 9 GiB" in text
    assert "IA3 (1 of 2 seeds failed)" in text
    assert "IA3 seed 1: crashed: killed" in text
    assert "nan" not in text


def test_terminal_table_states_a_shared_reason_once() -> None:
    records = [
        missing(method, "failed", "no such folder", seed)
        for method in ("full", "lora")
        for seed in (0, 1)
    ]
    text = terminal_table(Comparison(tuple(records)))
    assert text.count("no such folder") == 1
    assert "Full fine-tuning, LoRA: failed: no such folder" in text


def test_csv_and_markdown_tables_have_the_same_content_as_the_terminal_table() -> None:
    comparison = Comparison(
        (*with_accuracy("lora", 0.80, 0.82), missing("full", "failed", "=cmd|' /C calc'!A0"))
    )
    full, lora = csv.DictReader(io.StringIO(csv_table(comparison)))
    assert (float(lora["accuracy"]), lora["seeds"]) == (pytest.approx(0.81), "0 1")
    assert float(lora["accuracy_sd"]) == pytest.approx(0.014142, rel=1e-3)
    assert full["missing"].startswith("seed 0: failed: =cmd")
    assert "| LoRA" in markdown_table(comparison)


def test_terminal_table_shows_gpu_costs_in_a_separate_table() -> None:
    cost = {
        "step_median_seconds": 0.0421,
        "train_reserved_bytes": 2.0**30,
        "energy_joules": 1234.0,
        "activations_bytes": 2.0**29,
    }
    text = terminal_table(
        Comparison(
            (*with_accuracy("lora", 0.80, 0.82, **cost), missing("full", "oom", "too large"))
        )
    )
    line = next(line for line in text.splitlines() if "42.1 ms" in line)
    assert line.startswith("LoRA")
    assert all(figure in line for figure in ("1,234 J", "1,024.0 MiB", "512.0 MiB", "–"))
    assert "Energy: training phase only." in text
    assert "Energy" not in terminal_table(Comparison(tuple(with_accuracy("lora", 0.8))))


def test_markdown_table_escapes_untrusted_text() -> None:
    text = markdown_table(Comparison((missing("full", "failed", "<script>|x|</script>"),)))
    assert "<script>" not in text
    assert "\\<script\\>\\|x\\|" in text


def test_printable_comparison_prints_its_table_and_converts_to_a_data_frame() -> None:
    comparison = PrintableComparison(
        (*with_accuracy("lora", 0.8, 0.9), missing("full", "failed", "why"))
    )
    assert str(comparison) == repr(comparison) == comparison.table()
    assert "Samples/s" in comparison.table(width=300)
    frame = comparison.to_pandas()
    assert list(frame["accuracy"].dropna()) == [0.8, 0.9]
    assert list(frame["status"]) == ["ok", "ok", "failed"]
    assert "LoRA" in comparison._repr_markdown_()


def test_terminal_table_shows_costs_but_no_quality_for_random_weights() -> None:
    records = [random_record(method, seed) for method in ("full", "lora") for seed in (0, 1)]
    text = terminal_table(Comparison(tuple(records)))
    assert (
        "embedded: bundled:minilm (random weights) "
        "on bundled:movie_reviews (random tokens), 400 train"
    ) in text
    lora = next(line for line in text.splitlines() if line.startswith("LoRA")).split()
    assert lora[1:3] == ["–", "–"]
    assert "10.0 ± 0.0 s" in text
    assert text.count("V501 note") == 1
    assert "nan" not in text
    _, line = csv.DictReader(io.StringIO(csv_table(Comparison(tuple(records)))))
    assert (line["accuracy"], float(line["train_seconds"])) == ("", 10.0)


def test_terminal_table_shortens_findings_that_differ_only_in_numbers() -> None:
    def lines(seeds: int) -> list[str]:
        records = [
            make_record(
                "lora", seed, metrics={**make_record().metrics, "busy_share": 0.3 + seed / 100}
            )
            for seed in range(seeds)
        ]
        return [
            line
            for line in terminal_table(Comparison(tuple(records))).splitlines()
            if line.startswith("V411")
        ]

    assert [len(lines(seeds)) for seeds in (1, 3, 4, 9)] == [1, 3, 3, 3]
    first, second, rest = lines(9)
    assert "embedded-lora-seed0: the training thread had a core for 30%" in first
    assert "seed1" in second
    assert rest == "V411 warning 7 more runs, with other values; the HTML report lists them all"
