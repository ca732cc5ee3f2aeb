"""Rows of one method: seeds, different settings, or summaries of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.audit import audit_rows
from peft_methods.analysis.external.groups import groups_of
from peft_methods.analysis.external.tables import PlainTable, TableError, read_tables


def read(folder: Path, text: str, mapping: dict[str, str] | None = None) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv", None, mapping)
    return table


def entries(table: PlainTable) -> list[str]:
    return [row.name for group in groups_of(table.rows) for row in group.methods]


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("alpha", ("8", "16")),
        ("lora_dropout", ("0.05", "0.1")),
        ("Optimizer", ("AdamW", "SGD")),
        ("Scheduler", ("linear", "cosine")),
        ("Prompt template", ("A", "B")),
        ("Placement", ("attention", "mlp")),
        ("k", ("4", "8")),
    ],
)
def test_rows_that_differ_in_an_unknown_setting_are_no_seeds(
    header: str, values: tuple[str, str], tmp_path: Path
) -> None:
    first, second = values
    text = f"method,{header},acc\nLoRA,{first},0.91\nLoRA,{second},0.90\nFull,,0.92\n"
    table = read(tmp_path, text)
    assert entries(table) == [f"LoRA ({header} {first})", f"LoRA ({header} {second})", "Full"]
    (remark,) = audit_rows(table.rows).remarks
    assert f"rows 1, 2 are LoRA and differ in {header!r}" in remark


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("seed", ("1", "2")),
        ("Run ID", ("a7f", "b3c")),
        ("Inference latency (ms)", ("3", "4")),
        ("Notes", ("fine", "slow node")),
        ("recall@5", ("0.81", "0.82")),
        ("some figure", ("12.345", "12.871")),
        ("url", ("https://example.org/a", "https://example.org/b")),
    ],
)
def test_rows_that_differ_in_what_a_run_yields_are_seeds(
    header: str, values: tuple[str, str], tmp_path: Path
) -> None:
    first, second = values
    text = f"method,{header},acc\nLoRA,{first},0.91\nLoRA,{second},0.90\nFull,,0.92\n"
    assert entries(read(tmp_path, text)) == ["LoRA", "Full"]


def test_seeds_of_settings_are_merged_within_each_setting(tmp_path: Path) -> None:
    text = "method,alpha,seed,acc\nLoRA,8,1,0.9\nLoRA,8,2,0.8\nLoRA,16,1,0.7\nLoRA,16,2,0.6\n"
    (group,) = groups_of(read(tmp_path, text).rows)
    assert [row.name for row in group.methods] == ["LoRA (alpha 8)", "LoRA (alpha 16)"]
    assert [row.accuracy for row in group.methods] == pytest.approx([0.85, 0.65])


@pytest.mark.parametrize(
    "name",
    [
        "Mean", "Avg", "Avg.", "**Average**", "AVERAGE (all)", "Δ", "Δ (LoRA - Full)", "Δ vs Full",
        "Best", "Median", "mean ± std", "Std", "Mittelwert", "Moyenne", "Promedio", "平均",
        "LoRA vs. Full", "Improvement over Full", "Overall", "Difference", "Total", "Delta",
    ],
)  # fmt: skip
def test_summaries_are_left_out_by_name(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,acc\nFull,0.92\nLoRA,0.91\n{name},0.915\n")
    assert [row.name for row in table.rows] == ["Full", "LoRA"]
    (remark,) = table.ignored
    assert remark.startswith("row 3 (")
    assert "is a summary, no method, and left out" in remark


@pytest.mark.parametrize(
    "name",
    [
        "LoRA (best)", "LoRA, mean of 3 seeds", "AdaLoRA", "Best LoRA", "Delta-LoRA",
        "Diff pruning", "Delta tuning", "Δ-tuning", "Mean pooling + head", "MaxLoRA",
    ],
)  # fmt: skip
def test_a_method_stays_whose_name_has_such_a_word(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, f'method,acc\nFull,0.92\n"{name}",0.91\n')
    assert len(table.rows) == 2


def test_the_mean_of_seeds_beside_them_is_a_summary(tmp_path: Path) -> None:
    table = read(tmp_path, "method,acc\nLoRA seed 1,0.9\nLoRA seed 2,0.8\nLoRA mean,0.85\n")
    assert [row.name for row in table.rows] == ["LoRA seed 1", "LoRA seed 2"]
    table = read(tmp_path, "method,seed,acc\nLoRA,1,0.9\nLoRA,2,0.8\nLoRA,mean,0.85\nIA3,1,0.7\n")
    assert [row.line for row in table.rows] == [0, 1, 3]
    table = read(tmp_path, "method,dataset,acc\nLoRA,RTE,0.9\nLoRA,MRPC,0.8\nLoRA,Average,0.85\n")
    assert [row.data for row in table.rows] == ["RTE", "MRPC"]
    assert "row 3 ('LoRA, Average')" in table.ignored[-1]


def test_a_table_of_summaries_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="its rows are summaries"):
        read(tmp_path, "method,acc\nmean,0.9\nstd,0.1\n")


@pytest.mark.parametrize("header", ["shape", "colour", "Hub link", "Footnote", "License", "Notes"])
def test_nothing_far_off_is_suggested(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header},acc\nLoRA,x y,0.9\n")
    assert table.ignored == (
        f'unknown column, not read: {header!r}. Say what one holds by --map "{header}=FIELD"',
    )
    with pytest.raises(TableError) as caught:
        read(tmp_path, f"method,{header},acc\nLoRA,x,0.9\n", {header: header})
    assert "Did you mean" not in str(caught.value)


def test_cells_of_summaries_are_not_read(tmp_path: Path) -> None:
    """A difference is no share of its column, and no reason to call others percentages."""
    text = "method,acc,time (s)\nFull,0.93,20\nLoRA,0.92,10\nΔ,-1.1,-10\n"
    table = read(tmp_path, text)
    assert [row.accuracy for row in table.rows] == [0.93, 0.92]
    assert len(table.ignored) == 1
    assert len(table.cells) == 3


@pytest.mark.parametrize(
    "name", ["LoRA - Full", "(LoRA − FT)", r"$\Delta$ (LoRA $-$ FT)", "IA3 – FT"]
)
def test_differences_of_two_methods_are_left_out(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,acc\nFull,0.93\nLoRA,0.92\n{name},0.01\n")
    assert [row.name for row in table.rows] == ["Full", "LoRA"]
