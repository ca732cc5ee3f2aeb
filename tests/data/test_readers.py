"""Files as people have them: separators, encodings, names in capitals, arrays, class names."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from builders import TASK, data_spec, make_rows
from peft_methods.data import splits
from peft_methods.data.columns import find_columns
from peft_methods.data.files import read_path
from peft_methods.data.raw import RawData, RawTable
from peft_methods.data.readers import read_table
from peft_methods.utils.errors import DataError

ROWS = make_rows(6)


def table_text(separator: str) -> str:
    lines = [("text", "label"), *((row["text"], row["label"]) for row in ROWS)]
    return "\n".join(separator.join(map(str, line)) for line in lines) + "\n"


def quoted(text: str) -> str:
    return f'"{text}"'


PADDED = table_text(";").replace("\n", ";;\n")
WITH_NOTES = "\n".join(
    ["text;label;note (a,b)", *(f"{row['text']};{row['label']};n" for row in ROWS)]
)

FILES: dict[str, bytes] = {
    "semicolons.csv": table_text(";").encode(),
    "tabs.csv": table_text("\t").encode(),
    "quoted.csv": table_text(";").replace("text;label", '"text";"label"').encode(),
    "commas.tsv": table_text(",").encode(),
    "marked.csv": table_text(",").encode("utf-8-sig"),
    "utf16.csv": table_text(";").encode("utf-16"),
    "utf16_big.csv": b"\xfe\xff" + table_text(";").encode("utf-16-be"),
    "utf16_unmarked.csv": table_text("\t").encode("utf-16-le"),
    "packed.csv.gz": gzip.compress(table_text(",").encode()),
    "packed.jsonl.gz": gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()),
    "old_mac.csv": table_text(",").replace("\n", "\r").encode(),
    "windows.csv": table_text(",").replace("\n", "\r\n").encode(),
    "columns_at_the_end.csv": PADDED.encode(),
    "header_with_empty_columns.csv": table_text(";").replace("label", "label;;").encode(),
    "rows_with_empty_columns.csv": PADDED.replace("label;;", "label").encode(),
    "empty_column.csv": table_text(";").replace(";", ";;").encode(),
    "blank_first.csv": ("\n \r\n" + table_text(";")).encode(),
    "separators_first.csv": (";;\n" + table_text(";")).encode(),
    "excel.csv": ("sep=;\r\n" + table_text(";")).encode("utf-8-sig"),
    "excel_tabs.csv": ("SEP=\t\n" + table_text("\t")).encode("utf-16"),
    "excel_other.csv": ('"sep=^"\n\n' + table_text("^")).encode(),
    "Capitals.CSV": table_text(",").encode(),
    "old_mac.jsonl": "\r".join(json.dumps(row) for row in ROWS).encode(),
    "array.json": json.dumps(ROWS, indent=2).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "marked.json": json.dumps(ROWS).encode("utf-8-sig"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_read_table_reads_a_file_as_meant(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    frame = read_table(tmp_path / name).frame
    assert list(frame.columns) == ["text", "label"]
    assert frame.to_dict("records") == ROWS


def test_commas_within_texts_do_not_decide_the_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\none, two, three;1\nfour;0\n", encoding="utf-8")
    assert read_table(tmp_path / "a.csv").frame["text"].tolist() == ["one, two, three", "four"]


def test_commas_in_the_header_do_not_decide_the_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(WITH_NOTES, encoding="utf-8")
    frame = read_table(tmp_path / "a.csv").frame
    assert list(frame.columns) == ["text", "label", "note (a,b)"]
    assert frame[["text", "label"]].to_dict("records") == ROWS


def test_a_column_without_a_name_is_kept_where_it_has_values(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "a.csv")
    frame = read_table(tmp_path / "a.csv").frame
    assert list(frame.columns) == ["Unnamed: 0", "text", "label"]
    assert frame["label"].tolist() == [row["label"] for row in ROWS]


def test_quoted_texts_may_be_long_and_have_lines_quotes_and_separators(tmp_path: Path) -> None:
    texts = ['one, "two"', "three\nfour\rfive", "six;" * 50_000]
    frame = pd.DataFrame({"text": texts, "label": [0, 1, 0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read_table(tmp_path / "a.csv").frame["text"].tolist() == texts


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n", encoding="utf-8")
    frame = read_table(tmp_path / "a.csv").frame
    assert (list(frame.columns), len(frame)) == (["text", "label"], 0)


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_separator_in_a_text_without_quotes_is_refused_by_line(
    separator: str, end: str, every: int, tmp_path: Path
) -> None:
    text = f"Hello{separator} world{separator}yes"
    lines = [
        separator.join((text if number % every == 0 else quoted(text), "c0"))
        for number in range(1, 7)
    ]
    content = end.join(["", f"text{separator}label", *lines, ""])
    (tmp_path / "train.csv").write_bytes(content.encode())
    message = (
        rf"train\.csv cannot be read as csv: .*line {2 + every} has 4 columns, but the header has "
        rf"2 \(text, label\): quote the text that contains '{separator}'"
    )
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "train.csv")


def test_the_line_of_a_refused_row_counts_the_lines_within_quotes(tmp_path: Path) -> None:
    content = 'sep=,\ntext,label\n"a\nb",1\nc, d,0\n'
    (tmp_path / "train.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="line 5 has 3 columns"):
        read_table(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\ncafé,1\n".encode("latin-1"), "not valid UTF-8; save the file as"),
        ("a.csv.gz", b"text,label\n", "cannot be read as csv: BadGzipFile"),
        ("a.json", b"[1, 2]", "each line should be a JSON object .* or the whole file an array"),
        ("a.json", b'[{"text": "a"', "cannot be read as json"),
        ("a.json", b'[\n  {"text": "a"},\n]', r"line 3 column 1|trailing comma.*line 2 column 16"),
        ("a.json", b'{\n  "text": "a",\n}', r"line 3 column 1|trailing comma.*line 2 column 14"),
        (
            "a.jsonl",
            b'{"text": "a"}\n\n{"text":}\n',
            r"value in line 3, column 9; each line",
        ),
        ("a.jsonl", b" \n", "it is empty"),
        ("a.csv", b"", "it is empty"),
        ("a.csv", b'""\na\n', "its header is empty"),
        ("a.csv", b"text;text\na;b\n", "two columns are called 'text'"),
        ("a.csv", b'text,label\na,1\n"b,0\nc,1\n', "the quote that line 3 opens is never closed"),
    ],
)
def test_read_table_names_a_file_of_another_format(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name)


def test_class_names_are_read_from_parquet_files(tmp_path: Path) -> None:
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["spam", "ham"])
    )
    for name, rows in (("train", make_rows(60)), ("test", make_rows(40, seed=1))):
        datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    assert read_path(tmp_path)[1] == {"label": ("spam", "ham")}
    assert splits.load(data_spec(tmp_path), TASK).facts.label_names == ("spam", "ham")


def write_bools(folder: Path, format: str, rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame([{**row, "label": bool(row["label"])} for row in rows])
    writers: dict[str, Callable[[Path], Any]] = {
        "csv": lambda path: frame.to_csv(path, index=False),
        "jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
        "parquet": frame.to_parquet,
    }
    writers[format](folder / f"train.{format}")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_truth_values_are_classes_with_names(format: str, tmp_path: Path) -> None:
    write_bools(tmp_path, format, make_rows(60))
    facts = splits.load(data_spec(tmp_path, test_split="train"), TASK).facts
    assert facts.label_names == ("False", "True")


@pytest.mark.parametrize("name", ["Train.CSV", "TRAINING.csv", "train.csv.gz", "reviews.csv"])
def test_a_folder_is_read_whatever_the_case_of_its_names(name: str, tmp_path: Path) -> None:
    content = table_text(",").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    frames, _ = read_path(tmp_path)
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 6}


def test_a_single_file_is_train(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(table_text(","), encoding="utf-8")
    assert list(read_path(tmp_path / "mine.csv")[0]) == ["train"]
    (tmp_path / "mine.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"unknown format\. Give a file in one of the formats csv"):
        read_path(tmp_path / "mine.xlsx")


def test_several_files_that_are_no_splits_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(table_text(","), encoding="utf-8")
    with pytest.raises(DataError, match=r"none of a\.csv, b\.csv is named after a split\. Name"):
        read_path(tmp_path)
    (tmp_path / "json").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "json" / name).write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(DataError, match=r"none of a\.json, b\.json is named after a split\. Name"):
        read_path(tmp_path / "json")


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        (("body", "rating"), {"label": "rating"}, ("body", None, "rating")),
        (("body", "rating"), {"label": " RATING"}, ("body", None, "rating")),
        (("body", "review"), {"label": "review"}, ("body", None, "review")),
        (("body", "about", "label"), {"text_pair": "about"}, ("body", "about", "label")),
        (("question", "sentence", "text"), {"label": "sentence"}, ("text", None, "sentence")),
        (("label", "class"), {"text": "label"}, ("label", None, "class")),
    ],
)
def test_a_column_that_the_user_names_has_no_other_role(
    columns: tuple[str, ...], named: dict[str, str], expected: tuple[str, str | None, str]
) -> None:
    raw = RawData({"train": RawTable({column: ["good", "bad"] for column in columns})})
    found = find_columns(raw, data_spec(Path("mine"), **named), ("label", "class"))
    assert (found.text, found.pair, found.label) == expected


def test_columns_are_found_whatever_their_case(tmp_path: Path) -> None:
    frame = pd.DataFrame(make_rows(60)).rename(columns={"text": "Text", "label": " LABEL"})
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame = pd.DataFrame(make_rows(40, seed=1)).rename(columns={"text": "TEXT", "label": "Label"})
    frame.to_csv(tmp_path / "test.csv", index=False)
    assert len(splits.load(data_spec(tmp_path), TASK).splits["train"]) == 20
    assert len(splits.load(data_spec(tmp_path, label="label"), TASK).splits["test"]) == 10
    with pytest.raises(DataError, match=r"no column 'txt'\. Did you mean"):
        splits.load(data_spec(tmp_path, text="txt"), TASK)
