"""CoNLL files: columns, sentences, documents, comments, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.data.conll import parse_conll
from peft_methods.data.files import read_path
from peft_methods.data.readers import read_table
from peft_methods.utils.errors import DataError

TWO = {"tokens": [["EU", "rejects"], ["Peter"]], "tags": [["B-ORG", "O"], ["B-PER"]]}
# No separator, no line break; a word that begins with # could be a comment.
PART = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters=" \t\r\n#"), min_size=1, max_size=6
).filter(lambda part: part != "-DOCSTART-" and not part.isdigit())


@pytest.mark.parametrize(
    "text",
    [
        "EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\n",
        "EU B-ORG\nrejects   O\n\n\n\nPeter B-PER",
        "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n",
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n-DOCSTART- -X- -X- O\n\n"
        "Peter NNP B-NP B-PER\n",
        "EU\tB-ORG\r\nrejects\tO\r\n\r\nPeter\tB-PER\r\n",
        "EU\tB-ORG\nrejects\tO\n\t\nPeter\tB-PER\n \t \n",
        "# id = 7\nEU\tB-ORG\nrejects\tO\n\n# id = 8\tdomain=en\nPeter\tB-PER\n",
    ],
    ids=["tabs", "blanks", "four columns", "documents", "CRLF", "blank lines", "comments"],
)
def test_sentences_are_read_from_columns(text: str) -> None:
    assert parse_conll(text) == TWO


def test_lines_may_end_with_a_carriage_return_alone() -> None:
    text = "EU\tB-ORG\rrejects\tO\r\rPeter\tB-PER\r"
    assert parse_conll(text) == parse_conll(text.replace("\r", "\n"))


def test_words_may_contain_blanks_and_unusual_line_separators() -> None:
    text = "New York\tB-LOC\n\u2028\tO\n# 1\tO\n"
    assert parse_conll(text)["tokens"] == [["New York", "\u2028", "# 1"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EU\nrejects\n", r"line 1 has one column \('EU'\); each line should hold a word and its"),
        ("EU B-ORG\nPeter NNP B-PER\n", "line 2 has 3 columns, but those before have 2"),
        (
            "# sent_id = 1\n1\tEU\tEU\tPROPN\tNNP\t_\t2\tnsubj\t_\t_\n",
            "line 2 is in CoNLL-U, whose last column is no tag",
        ),
        ("-DOCSTART- O\n\n", "it holds no sentence"),
        ("\n\n", "it is empty"),
        ("a\tO\n" * 101, "it holds one sentence of 101 words; separate sentences by blank lines"),
    ],
)
def test_other_files_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.conll"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"train\.conll cannot be read as conll: {message}"):
        read_table(file)


@given(st.lists(st.lists(st.tuples(PART, PART), min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_written_is_read_back(sentences: list[list[tuple[str, str]]]) -> None:
    text = "\n\n".join("\n".join("\t".join(pair) for pair in one) for one in sentences)
    assert parse_conll(text) == {
        "tokens": [[word for word, _ in one] for one in sentences],
        "tags": [[tag for _, tag in one] for one in sentences],
    }


def test_folders_and_single_files_are_read(tmp_path: Path) -> None:
    text = "EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\n"
    (tmp_path / "train.txt").write_text(text, encoding="utf-8")
    (tmp_path / "dev.conll").write_text(text, encoding="utf-8-sig")
    (tmp_path / "test.conll.gz").write_bytes(gzip.compress(text.encode()))
    frames, _ = read_path(tmp_path)
    assert list(frames) == ["train", "validation", "test"]
    assert all(frame.to_dict("list") == TWO for frame in frames.values())
    frames, _ = read_path(tmp_path / "dev.conll")
    assert frames["train"].to_dict("list") == TWO


def test_plain_texts_beside_other_data_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text("Anyone may use this.", encoding="utf-8")
    (tmp_path / "reviews.csv").write_text("text,label\nfine,1\n", encoding="utf-8")
    frames, _ = read_path(tmp_path)
    assert list(frames["train"].columns) == ["text", "label"]
    (tmp_path / "reviews.csv").rename(tmp_path / "train.csv")
    (tmp_path / "train.txt").write_text("The notes on train.", encoding="utf-8")
    assert list(read_path(tmp_path)[0]["train"].columns) == ["text", "label"]
