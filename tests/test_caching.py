"""What is kept from run to run is the same as what was made, and nothing about keeping it can fail a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods import caching, data
from peft_methods.embedded import cache_folder
from peft_methods.reading import Table
from peft_methods.rows import Rows
from peft_methods.shapes import number_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def remembered(value: object, key: object = "k") -> object:
    return caching.remembered_value("things", key, lambda: value)


def test_a_key_is_made_once() -> None:
    assert [remembered(1), remembered(2), remembered(3, "other"), remembered(4, "other")] == [
        1,
        1,
        3,
        3,
    ]


def test_a_damaged_file_is_made_anew_at_every_length() -> None:
    remembered("a value of some length")
    (file,) = (cache_folder() / "things").iterdir()
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert remembered("another") == "another"
        assert remembered("a third") == "another"


def test_no_other_number_passes_for_the_one_that_was_kept() -> None:
    """A part of a number is a number too, and so is one with another digit."""
    remembered(683123456789012.5)
    (file,) = (cache_folder() / "things").iterdir()
    whole = file.read_bytes()
    for place in range(len(whole)):
        for spoilt in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        ):
            file.write_bytes(spoilt)
            assert remembered("made anew") == "made anew"


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    assert [remembered(1), remembered(2)] == [1, 2]


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "MAX_FILES", 3)
    for number in range(6):
        remembered(number, number)
    assert len(list((cache_folder() / "things").iterdir())) == 3
    assert remembered("new", 5) == 5
    assert remembered("new", 0) == "new"


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), max_size=9))
def test_rows_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]]
) -> None:
    rows = Rows.of(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, list(range(len(ids)))
    )
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    rows.write(path)
    back = Rows.read(path)
    assert back.labels.tolist() == rows.labels.tolist()
    assert {name: [row.tolist() for row in column] for name, column in back.tokens.items()} == {
        name: [row.tolist() for row in column] for name, column in rows.tokens.items()
    }


def test_tokens_are_kept_by_text_tokenizer_and_cut() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(1, 50, 12))) for _ in range(data.WORTH_KEEPING)]
    table = Table(texts, [0, 1] * (data.WORTH_KEEPING // 2))
    facts = data.DataFacts("here", ("a", "b"), {}, "x")
    splits = {"train": table, "validation": table.take(range(3)), "test": table.take(range(3))}

    def tokens(max_length: int, vocabulary: int) -> list[list[int]]:
        loaded = data.tokenize(
            data.TextData(splits, facts), number_tokenizer(vocabulary, 0), max_length
        )
        return [row.tolist() for row in loaded.train.tokens["input_ids"]]

    def kept() -> int:
        return len(list((cache_folder() / "tokens").iterdir()))

    first = tokens(10, 60)
    assert kept() == 2  # whole and cut; the small splits are not worth it
    assert tokens(10, 60) == first
    assert kept() == 2
    assert tokens(8, 60) == [row[:8] for row in first] or [row[:7] for row in tokens(8, 60)] == [
        row[:7] for row in first
    ]
    assert kept() == 3
    tokens(10, 61)
    assert kept() == 5
