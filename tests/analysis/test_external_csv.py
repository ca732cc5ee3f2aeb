"""CSV files as people write them: commas within cells, lines that are no rows, second headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, TableError, read_tables


def read(folder: Path, text: str) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv")
    return table


@pytest.mark.parametrize(
    ("line", "name", "trainable", "accuracy"),
    [
        ("Full FT,124,647,170,0.93,10", "Full FT", 124_647_170, 0.93),
        ("LoRA (r=8, alpha=16),296450,0.93,10", "LoRA (r=8, alpha=16)", 296_450, 0.93),
        ("LoRA, r=8,296450,0.93,10", "LoRA, r=8", 296_450, 0.93),
        ("LoRA (r=8, alpha=16),296,450,0.93,10", "LoRA (r=8, alpha=16)", 296_450, 0.93),
    ],
)
def test_an_unquoted_comma_is_read_where_only_one_reading_fits(
    line: str, name: str, trainable: int, accuracy: float, tmp_path: Path
) -> None:
    table = read(tmp_path, f"method,trainable params,accuracy,epochs\nIA3,9000,0.9,10\n\n{line}\n")
    row = table.rows[1]
    assert row.trainable
    assert (row.name, row.trainable.value, row.accuracy, row.epochs) == (
        name, trainable, accuracy, 10,
    )  # fmt: skip
    (remark,) = table.ignored
    assert remark.startswith("line 4 has")
    assert "unquoted" in remark


def test_what_can_be_read_in_two_ways_is_named_with_its_line(tmp_path: Path) -> None:
    text = "method,train rows,test rows,acc\nLoRA,800,200,0.9\n# by hand\n\nIA3,1,200,300,0.9\n"
    table = read(tmp_path, text)
    assert [row.name for row in table.rows] == ["LoRA"]
    (remark,) = table.ignored
    assert "line 5 has 5 fields, but the header has 4" in remark
    assert "'IA3,1,200,300,0.9'" in remark


def test_a_decimal_comma_between_commas_is_never_read_as_thousands(tmp_path: Path) -> None:
    table = read(tmp_path, "method,acc\nIA3,0.9\nLoRA,93,4\n")
    assert [row.name for row in table.rows] == ["IA3"]
    assert "line 3" in table.ignored[0]


def test_lines_about_the_file_are_no_rows(tmp_path: Path) -> None:
    table = read(tmp_path, "sep=;\nmethod;acc\nLoRA;0,93\n")
    assert table.rows[0].accuracy == 0.93
    table = read(tmp_path, "# method,acc\nLoRA,0.93\n")
    assert table.rows[0].accuracy == 0.93
    table = read(tmp_path, "# made by a script, twice, on a day\nmethod,acc\nLoRA,0.93\n")
    assert table.rows[0].accuracy == 0.93


def test_a_file_whose_every_line_has_too_many_fields_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 2 has 4 fields, but the header has 2"):
        read(tmp_path, "method,acc\nLoRA,x,y,z\n")


def test_without_a_whole_line_the_headers_say_which_columns_hold_numbers(tmp_path: Path) -> None:
    text = "Method,Trainable params,Acc\nFull,109,483,778,0.92\nLoRA (r=8, a=16),296,450,0.9\n"
    table = read(tmp_path, text)
    assert [row.trainable and row.trainable.value for row in table.rows] == [109_483_778, 296_450]


TEXTS = {
    "pandas": "      method    acc   params (M)\n0    full FT  0.921  109.5\n"
    "1       lora  0.915    0.3\n",
    "aligned": "method   acc    params (M)\nfull FT  0.921  109.5\nlora     0.915  0.3\n",
    "grid": "+---------+-------+------------+\n| method  | acc   | params (M) |\n"
    "+=========+=======+============+\n| full FT | 0.921 | 109.5      |\n"
    "+---------+-------+------------+\n| lora    | 0.915 | 0.3        |\n"
    "+---------+-------+------------+\n",
    "boxes": "┏━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━┓\n┃ method  ┃ acc   ┃ params (M) ┃\n"
    "┡━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━┩\n│ full FT │ 0.921 │ 109.5      │\n"
    "│ lora    │ 0.915 │ 0.3        │\n└─────────┴───────┴────────────┘\n",
}


@pytest.mark.parametrize("kind", list(TEXTS))
def test_tables_of_plain_text(kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXTS[kind], encoding="utf-8")
    (table,) = read_tables(tmp_path / "t.txt")
    assert table.ignored == ()
    assert [(row.method, row.accuracy) for row in table.rows] == [("full", 0.921), ("lora", 0.915)]
    assert [row.trainable and row.trainable.value for row in table.rows] == [109.5e6, 0.3e6]


def test_an_unquoted_semicolon(tmp_path: Path) -> None:
    table = read(tmp_path, "method;acc;device\nfull;0,921;T4\nlora (r=8; q,v);0,915;T4\n")
    assert [(row.name, row.accuracy) for row in table.rows] == [
        ("full", 0.921), ("lora (r=8; q,v)", 0.915),
    ]  # fmt: skip
    assert "unquoted ';'" in table.ignored[0]
