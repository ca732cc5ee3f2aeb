"""The cache on disk: a cached value equals the original, and caching never fails a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.data import tokenize
from peft_methods.data.facts import DataFacts, TextData
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.presets import number_tokenizer
from peft_methods.utils import cache
from peft_methods.utils.cache import cache_folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def remembered(value: object, key: object = "k") -> object:
    return cache.cached_value("things", key, lambda: value)


def test_remembered_value_makes_each_key_once() -> None:
    assert [remembered(1), remembered(2), remembered(3, "other"), remembered(4, "other")] == [
        1,
        1,
        3,
        3,
    ]


def test_remembered_value_replaces_a_file_truncated_at_any_length() -> None:
    remembered("a value of some length")
    (file,) = (cache_folder() / "things").iterdir()
    intact = file.read_bytes()
    for length in range(len(intact)):
        file.write_bytes(intact[:length])
        assert remembered("another") == "another"
        assert remembered("a third") == "another"


def test_remembered_value_detects_every_damaged_number() -> None:
    """A truncated number is a number too, and so is one with a changed digit."""
    remembered(683123456789012.5)
    (file,) = (cache_folder() / "things").iterdir()
    intact = file.read_bytes()
    for place in range(len(intact)):
        for damaged in (
            intact[:place],
            intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :],
        ):
            file.write_bytes(damaged)
            assert remembered("new value") == "new value"


def test_remembered_value_stores_nothing_if_the_cache_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    assert [remembered(1), remembered(2)] == [1, 2]


def test_remembered_value_deletes_the_least_recently_used_files_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "MAX_FILES", 3)
    for number in range(6):
        remembered(number, number)
    assert len(list((cache_folder() / "things").iterdir())) == 3
    assert remembered("new", 5) == 5
    assert remembered("new", 0) == "new"


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), max_size=9))
def test_rows_read_returns_what_write_stored(
    tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]]
) -> None:
    rows = TokenRows.of(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, list(range(len(ids)))
    )
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    rows.write(path)
    back = TokenRows.read(path)
    assert back.labels.tolist() == rows.labels.tolist()
    assert {name: [row.tolist() for row in column] for name, column in back.tokens.items()} == {
        name: [row.tolist() for row in column] for name, column in rows.tokens.items()
    }


def test_tokenize_caches_by_text_tokenizer_and_max_length() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(1, 50, 12))) for _ in range(tokenize.MIN_ROWS_TO_CACHE)]
    table = LabelledTexts(texts, [0, 1] * (tokenize.MIN_ROWS_TO_CACHE // 2))
    facts = DataFacts("here", ("a", "b"), {}, "x")
    splits = {"train": table, "validation": table.take(range(3)), "test": table.take(range(3))}

    def tokens(max_length: int, vocabulary: int) -> list[list[int]]:
        loaded = tokenize.tokenize(
            TextData(splits, facts), number_tokenizer(vocabulary, 0), max_length
        )
        return [row.tolist() for row in loaded.train.tokens["input_ids"]]

    def cached_files() -> int:
        return len(list((cache_folder() / "tokens").iterdir()))

    first = tokens(10, 60)
    assert cached_files() == 2  # whole and truncated; the small splits are not cached
    assert tokens(10, 60) == first
    assert cached_files() == 2
    assert tokens(8, 60) == [row[:8] for row in first] or [row[:7] for row in tokens(8, 60)] == [
        row[:7] for row in first
    ]
    assert cached_files() == 3
    tokens(10, 61)
    assert cached_files() == 5
