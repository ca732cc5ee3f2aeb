"""Tables without a column of methods: a header may imply the method of every row."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, TableError, read_tables


def read(folder: Path, text: str, mapping: dict[str, str] | None = None) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv", None, mapping)
    return table


def test_ranks_below_a_methods_name_are_that_method(tmp_path: Path) -> None:
    table = read(
        tmp_path, "LoRA rank,trainable / total params,accuracy\n2,1000 / 1.2M,0.9\n8,4000,\n"
    )
    assert [(row.name, row.method, row.rank) for row in table.rows] == [
        ("LoRA rank 2", "lora", 2),
        ("LoRA rank 8", "lora", 8),
    ]
    first = table.rows[0]
    assert first.trainable
    assert first.total
    assert (first.trainable.value, first.total.value) == (1000, 1.2e6)
    assert table.ignored == ("no column names the methods: rows are named by 'LoRA rank'",)


@pytest.mark.parametrize(
    ("yes", "no", "name"),
    [
        ("Yes (Q, V)", "No (baseline)", "LoRA (Q, V)"),
        ("✓", "✗", "LoRA"),
        ("✅", "❌", "LoRA"),
        ("✔", "", "LoRA"),
        ("true", "False", "LoRA"),
        ("with", "without", "LoRA"),
        ("1", "0", "LoRA"),
    ],
)
def test_answers_below_a_methods_name(yes: str, no: str, name: str, tmp_path: Path) -> None:
    table = read(tmp_path, f'LoRA,accuracy\n"{no}",0.8\n"{yes}",0.9\n')
    assert [(row.name, row.method) for row in table.rows] == [("baseline", None), (name, "lora")]
    assert table.headers == ("method", "accuracy")


@pytest.mark.parametrize(
    "text",
    [
        "LoRA,accuracy\n0.7,0.9\n0.8,0.95\n",  # scores of LoRA, no answers
        "LoRA,IA3,accuracy\nyes,no,0.9\nno,yes,0.8\n",  # which of them names the row?
        "rank,accuracy\n2,0.9\n",  # of which method?
        "LoRA,accuracy\n,0.9\n",
    ],
)
def test_other_headers_imply_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no column names the methods"):
        read(tmp_path, text)


def test_a_column_by_hand_comes_first(tmp_path: Path) -> None:
    table = read(tmp_path, "LoRA rank,who,accuracy\n2,mine,0.9\n", {"who": "method"})
    assert [row.name for row in table.rows] == ["mine"]


def test_models_that_name_methods_too(tmp_path: Path) -> None:
    text = "Models,accuracy\nBERT with Adapter,0.9\nBERT baseline (bert-base-uncased),0.91\nX,0.8\n"
    table = read(tmp_path, text)
    assert [row.method for row in table.rows] == ["adapter", None, None]


def test_one_known_figure_is_enough_below_metric(tmp_path: Path) -> None:
    text = (
        "Metric,Standard Fine-Tuning,QLoRA\nSize,2 GB,1 GB\nSpeed,1,2\nTrainable params,1.1B,12M\n"
    )
    table = read(tmp_path, text)
    assert [row.method for row in table.rows] == ["full", "qlora"]
    assert [row.trainable and row.trainable.value for row in table.rows] == [1.1e9, 12e6]


def test_korean_headers(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path, "방법,정확도,학습 시간 (s),GPU 메모리 사용량\nLoRA,0.9,120,3108MiB\n"
    ).rows
    assert (row.method, row.accuracy, row.train_seconds) == ("lora", 0.9, 120)
    assert row.peak_memory
    assert row.peak_memory.value == 3108 * 2**20
