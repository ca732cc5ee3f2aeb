"""Columns known by their cells, their neighbours, or a unit alone; lines below the names."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, read_tables


def read(folder: Path, text: str) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv")
    return table


def test_an_unknown_column_whose_cells_are_models_names_the_models(tmp_path: Path) -> None:
    table = read(tmp_path, "method,Base,alpha\nLoRA,mistral-7b,16\nLoRA,llama-2-7b,32\n")
    assert [row.model for row in table.rows] == ["mistral-7b", "llama-2-7b"]
    assert "column 'Base' holds models by its cells, and was read as such" in table.ignored
    for other in ("method,Base,model\nLoRA,mistral-7b,x\n", "method,Base\nLoRA,45.3\n"):
        assert "'Base'" in read(tmp_path, other).ignored[-1]


def test_percent_behind_a_count_is_its_share(tmp_path: Path) -> None:
    table = read(tmp_path, "method,Trainable,Total,%\nLoRA,739586,66955010,1.10\n")
    assert table.fields["%"] == "trainable_share"
    table = read(tmp_path, "method,Trainable,f1,%\nLoRA,739586,0.9,1.10\n")
    assert "%" not in table.fields


@pytest.mark.parametrize(("header", "factor"), [("Hours", 3600), ("mins", 60), ("Seconds", 1)])
def test_a_unit_of_time_may_be_a_header(header: str, factor: float, tmp_path: Path) -> None:
    assert read(tmp_path, f"method,{header}\nLoRA,2\n").rows[0].train_seconds == 2 * factor
    assert read(tmp_path, "method,min\nLoRA,2\n").rows[0].train_seconds is None


def test_lines_below_the_names_of_columns_are_no_row(tmp_path: Path) -> None:
    head = "Method   Params   Acc\n-------  -------  ----\n"
    table = read(tmp_path, f"{head}Full     66.96M   91.2\nLoRA     0.74M    90.1\n")
    assert [row.name for row in table.rows] == ["Full", "LoRA"]
    assert table.ignored == ()


@pytest.mark.parametrize("header", ["#GPU", "GPUs", "GPU", "num_gpus"])
def test_numbers_below_a_devices_name_are_numbers_of_gpus(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header}\nFull,4\nLoRA,1\nQLoRA,\n")
    assert [row.device for row in table.rows] == ["4 GPUs", "1 GPU", None]


@pytest.mark.parametrize(
    ("header", "share"), [("Anteil (%)", 0.0110), ("pct", 0.0110), ("(%)", 0.0110)]
)
def test_words_for_a_share_behind_a_count(header: str, share: float, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,Trainable params,{header}\nLoRA,739586,1.10\n")
    found = table.rows[0].trainable_share
    assert found is not None
    assert found.value == pytest.approx(share)


@pytest.mark.parametrize("header", ["Trainable (incl. head)", "# Params (without the head)"])
def test_a_note_on_the_head_is_no_part_of_a_columns_name(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header}\nLoRA,739586\n")
    assert table.rows[0].trainable is not None
