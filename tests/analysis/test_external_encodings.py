"""Files in other encodings than UTF-8 are read, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import TableError, read_tables

TABLE = "Méthode,Exactitude,Durée (s)\r\nLoRA,0.93,12\r\nIA³ – café,0.91,10\r\n"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8-sig", b""),
        ("utf-16", b""),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32", b""),
        ("cp1252", b""),
    ],
)
def test_the_same_table_in_every_encoding(encoding: str, mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(mark + TABLE.encode(encoding))
    (table,) = read_tables(path)
    assert [row.method for row in table.rows] == ["lora", "ia3"]
    assert [row.accuracy for row in table.rows] == [0.93, 0.91]
    assert table.rows[1].name == "IA³ – café"
    assert [row.train_seconds for row in table.rows] == [12, 10]
    assert [remark for remark in table.ignored if "Windows-1252" not in remark] == []
    assert len(table.ignored) == (encoding == "cp1252")


def test_a_file_of_one_run_in_utf_16(tmp_path: Path) -> None:
    run = tmp_path / "lora"
    run.mkdir()
    (run / "all_results.json").write_text('{"eval_accuracy": 0.9}', encoding="utf-16")
    (table,) = read_tables(tmp_path)
    assert table.rows[0].validation_accuracy == 0.9


@pytest.mark.parametrize(
    "data",
    [
        "方法,准确率\nLoRA微调方法,0.9\n".encode("gb18030"),
        b"method,acc\nLoRA,\xff\x00\x01\x02\n",
        b"\xff\xfem\x00e",
        b"\xff\xfe\x00\xd8\x00\xd8",
        bytes(range(256)),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(TableError) as caught:
        read_tables(path)
    assert len(str(caught.value).splitlines()) == 1
