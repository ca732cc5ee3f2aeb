"""The table in the terminal: its width, its columns and its colours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from builders import (
    CLEARLY_DIFFERENT,
    error_line,
    make_comparison,
    make_record,
    missing,
    records_of,
    with_accuracy,
)
from peft_methods.analysis.comparison import Comparison
from peft_methods.api import PrintableComparison
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.paper.document import document
from peft_methods.report.paper.study import studies_of
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.report.text.layout import Emphasis, Layout
from peft_methods.utils.errors import OptionError

GPU_COSTS = {
    name: 1e9 if name.endswith("bytes") else 0.25
    for name in METRICS
    if name.startswith(("step_", "train_reserved", "train_device", "energy", "latency", "merged_"))
    or name.endswith("_bytes")
}


def every_kind_of_row() -> Comparison:
    """Return a comparison with a failed method, a failed seed, one seed, and costs of a GPU."""
    big = {"method_parameters": 124_645_632, "head_parameters": 592_130, **GPU_COSTS}
    some = make_comparison(
        {name: (values, big | more) for name, (values, more) in CLEARLY_DIFFERENT.items()}
    )
    others = (missing("bitfit", "oom", "too large"), *with_accuracy("adapter", 0.8))
    lost = missing("adapter", "crashed", "killed", seed=1)
    return Comparison((*some.records, *others, lost), predictions=some.predictions)


def tables_of(text: str) -> list[list[str]]:
    """Return the lines of each table in the text."""
    return [part.splitlines() for part in text.split("\n\n") if "\n----" in part]


@pytest.mark.parametrize("width", [70, 80, 100, 120])
def test_every_table_fits_the_width(width: int) -> None:
    text = terminal_table(every_kind_of_row(), layout=Layout(width=width))
    tables = tables_of(text)
    assert len(tables) > 3
    assert max(len(line) for lines in tables for line in lines) <= width
    for costs in ("Energy", "Activations", "Workspace"):
        assert any(costs in lines[0] for lines in tables)
    assert f"Not shown at a width of {width}: " in text


def test_narrow_table_keeps_quality_group_size_time_and_memory() -> None:
    heading = " ".join(
        line
        for line in tables_of(terminal_table(every_kind_of_row(), layout=Layout(width=80)))[0][:2]
    )
    for word in ("Accuracy", "Group", "Trainable", "time", "memory"):
        assert word in heading
    assert "Macro F1" not in heading


def test_wide_table_has_every_usual_column() -> None:
    text = terminal_table(every_kind_of_row())
    assert "Trainable (method + head)" in text
    assert "Samples/s" in text
    assert "Not shown" not in text
    assert "Trainable (method + head)" in markdown_table(every_kind_of_row())


def test_tables_of_models_without_a_new_head_have_the_parameters_of_methods_alone() -> None:
    alone = {"method_parameters": 230_400.0, "head_parameters": 0.0}
    comparison = make_comparison({name: ([0.8, 0.9], alone) for name in ("lora", "ia3")})
    studies = studies_of(comparison, None)
    for text in (
        terminal_table(comparison),
        comparison.table(columns=("parameters",)),
        comparison._repr_html_() or "",
        document(studies, "paper", {study.recipe: [] for study in studies}),
    ):
        assert "230,400" in text
        assert "+ 0" not in text
    for text in (terminal_table(comparison), markdown_table(comparison)):
        assert "Trainable" in text
        assert "head)" not in text


def test_prose_is_wrapped_between_words_and_keeps_units_with_their_numbers() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    wrapped = terminal_table(comparison, layout=Layout(width=80, is_wrapped=True))
    assert max(map(len, wrapped.splitlines())) <= 80
    assert not re.search(r"\n +%", wrapped)
    joined = re.sub(r"\n +", " ", wrapped)
    plain = terminal_table(comparison, layout=Layout(width=80))
    assert re.sub(r"\n +", " ", plain) == joined


def test_chosen_columns_are_shown_in_their_order_at_any_width() -> None:
    columns = ["pareto_front", "memory", "accuracy", "trainable_parameters"]
    table = tables_of(make_comparison(CLEARLY_DIFFERENT).table(columns, width=20))[0]
    heading = re.sub(r"\s+", " ", f"{table[0]} {table[1]}")
    assert [heading.index(word) for word in ("Pareto", "Peak", "Accuracy", "Trainable")] == sorted(
        heading.index(word) for word in ("Pareto", "Peak", "Accuracy", "Trainable")
    )
    lora = next(line for line in table if line.startswith("LoRA"))
    assert re.search(r"yes +6,676 MiB +90\.7 ± 0\.3 \* +74,498", lora)


def test_unknown_column_is_refused_with_the_nearest_name() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    with pytest.raises(OptionError, match=r"unknown column 'acuracy'\. Did you mean 'accuracy'\?"):
        comparison.table(["acuracy"])
    with pytest.raises(OptionError, match=r"Allowed: group, interval, .*accuracy, .*memory, time"):
        comparison.table(["x"])


def test_emphasis_marks_the_best_value_and_failures() -> None:
    def paint(text: str, emphasis: Emphasis) -> str:
        return text if emphasis == "plain" else f"<{emphasis}>{text}</>"

    clear = make_comparison(CLEARLY_DIFFERENT)
    some = replace(clear, records=(*clear.records, missing("bitfit", "oom", "too large")))
    text = terminal_table(some, layout=Layout(paint=paint))
    assert "<best>90.7 ± 0.3 *</>" in text
    assert "<error>oom</>" in text
    assert "<title>- Best quality:</> LoRA" in text
    assert "<warning>BitFit: oom: too large</>" in text


def test_html_representation_is_the_table_of_the_report_and_escapes_text() -> None:
    clear = make_comparison(CLEARLY_DIFFERENT)
    bad = missing("bitfit", "failed", "<script>x</script>")
    html = replace(clear, records=(*clear.records, bad))._repr_html_()
    assert html is not None
    assert html.count("<table") == 1
    assert "Peak memory" in html
    assert "<strong>Best quality:</strong> LoRA" in html
    assert "&lt;script&gt;x" in html
    assert "<script" not in html
    assert PrintableComparison(())._repr_html_() is not None


@pytest.mark.parametrize(
    ("arguments", "colour"), [(["--color=yes"], True), (["--color=no"], False), ([], False)]
)
def test_colours_follow_pytest(
    tell: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    colour: bool,
) -> None:
    for name in ("PY_COLORS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    found = [*records_of("lora"), *records_of("full", (0.7, 0.71, 0.72))]
    result = tell(found, *arguments, "--peft-markdown=t.md")
    text = result.stdout.str()
    assert ("\x1b[32m\x1b[1m90.0 ± 1.0 *\x1b[0m" in text) == colour
    with open("t.md", encoding="utf-8") as file:
        assert "\x1b" not in file.read()


def test_columns_option_chooses_columns_and_refuses_unknown_names(
    tell: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    usual = tell(records_of("lora")).stdout.str()
    assert "Choose columns with --peft-columns." in usual
    assert max(len(line) for lines in tables_of(usual) for line in lines) <= 80
    (table,) = tables_of(tell(records_of("lora"), "--peft-columns=accuracy,time").stdout.str())
    heading = next(line for line in table if line.startswith("Method"))
    assert heading.split()[:2] == ["Method", "Accuracy"]
    assert "Peak" not in heading
    refused = error_line(tell(records_of("lora"), "--peft-columns=acuracy"))
    assert "unknown column 'acuracy'. Did you mean 'accuracy'?" in refused
    assert refused.endswith("Change it with --peft-columns.")


def test_benchmark_table_of_pytest_is_shown_only_on_request(
    tell: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    title = "benchmark 'embedded'"
    quiet = tell(records_of("lora")).stdout.str()
    assert title not in quiet
    assert "OPS" not in quiet
    pytester.makepyfile(test_other="def test_other(benchmark): benchmark(int)")
    asked = tell(records_of("lora"), "--benchmark-columns=min,max").stdout.str()
    assert title in asked
    assert asked.index("comparison of fine-tuning methods") < asked.index(title)
    mixed = tell(records_of("lora")).stdout.str()
    assert "test_other" in mixed.partition("Name (time in")[2]
    assert title not in mixed


def test_a_shared_message_is_stated_once_and_plurals_are_right() -> None:
    records = [
        make_record(method, seed, message="the driver is old")
        for method in ("full", "lora")
        for seed in (0, 1)
    ]
    one = with_accuracy("ia3", 0.7)
    text = terminal_table(Comparison((*records, *one), notes=("a note", "a note")))
    assert text.count("the driver is old") == text.count("a note") == 1
    assert "Full fine-tuning seeds 0, 1; LoRA seeds 0, 1: the driver is old" in text, (
        "all runs are named"
    )
    single = terminal_table(Comparison(tuple(one)))
    assert "; seed 0; a cpu, 2 threads" in single
    assert not re.search(r"\b1 (runs|seeds|epochs|threads|rows|trials|methods)\b", single)


def test_failed_seeds_with_one_reason_are_one_problem(
    tell: Callable[..., pytest.RunResult],
) -> None:
    result = tell([missing("lora", "failed", "no such folder", seed) for seed in (0, 1)])
    summary = result.stdout.str().partition("comparison of fine-tuning methods")[0]
    assert summary.count("seeds 0, 1 failed: no such folder") >= 1
    assert "seed 0 failed" not in summary
    low = tell(records_of("lora", (0.5, 0.5, 0.5))).stdout.str()
    (line,) = {one for one in low.splitlines() if one.startswith("V301 error embedded-lora")}
    assert line.startswith("V301 error embedded-lora-seed0, embedded-lora-seed1, ")


def test_width_of_a_pipe_is_a_hundred_characters(
    tell: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if os.isatty(1):
        pytest.skip("this session writes to a terminal, whose width is taken")
    assert "Not shown at a width of 100" in tell(records_of("full")).stdout.str()
