"""The cache on disk: a cached value equals the original, and caching never fails a run."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import TASK, another_user
from peft_methods.data import tokenize
from peft_methods.data.facts import DataFacts, TextData
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.token_rows import TokenRows
from peft_methods.models.presets import number_tokenizer
from peft_methods.recipes.schema import DataSpec
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


def test_remembered_value_stores_nothing_if_its_folder_is_unwritable() -> None:
    (cache_folder() / "things").write_text("a file where the folder should be", encoding="utf-8")
    assert [remembered(1), remembered(2)] == [1, 2]


@pytest.fixture
def unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that cannot be made, and a folder for temporary files."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return blocked / "peft-methods"


def test_unusable_cache_folder_is_replaced_by_a_private_one_with_a_warning(
    unusable: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        assert [remembered(1), remembered(2)] == [1, 1]
    private = cache_folder()
    assert private.parent == tmp_path
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    (warning,) = caught  # one for the whole process
    assert str(unusable) in str(warning.message)
    assert str(private) in str(warning.message)
    assert cache.cache_notice() == str(warning.message)


def test_usable_cache_folder_needs_no_notice() -> None:
    assert cache.cache_notice() == ""


@pytest.mark.parametrize("trap", ["link", "open to all"])
def test_private_cache_folder_is_not_one_that_others_prepared(
    trap: str, unusable: Path, tmp_path: Path
) -> None:
    usual_name = tmp_path / f"peft-methods-cache-{os.geteuid()}"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        usual_name.symlink_to(tmp_path / "elsewhere")
    else:
        usual_name.mkdir()
        usual_name.chmod(0o777)
    with pytest.warns(UserWarning, match="cannot be written"):
        private = cache_folder()
    assert private != usual_name
    assert not private.is_symlink()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_unwritable_cache_folder_is_used_for_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cache that an administrator filled, for example."""
    with tempfile.TemporaryDirectory() as filled:
        (Path(filled) / "peft-methods" / "minilm" / "files").mkdir(parents=True)
        for folder in (Path(filled) / "peft-methods", Path(filled)):
            folder.chmod(0o555)
        monkeypatch.setenv("XDG_CACHE_HOME", filled)
        with another_user() as temporary:
            monkeypatch.setattr(tempfile, "tempdir", str(temporary))
            assert cache_folder("minilm") == Path(filled) / "peft-methods"
            with pytest.warns(UserWarning, match="Permission denied"):
                assert cache_folder("words").parent == temporary
        for folder in (Path(filled), Path(filled) / "peft-methods"):
            folder.chmod(0o755)


def test_cache_folder_of_another_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tempfile.mkdtemp()
    Path(foreign).chmod(0o500)
    with another_user() as temporary:
        monkeypatch.setenv("XDG_CACHE_HOME", foreign)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with pytest.warns(UserWarning, match="Permission denied") as caught:
            assert [remembered(1), remembered(2)] == [1, 1]
        assert foreign in str(caught[0].message)
        assert cache_folder().parent == temporary
    Path(foreign).rmdir()


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
            TextData(splits, facts),
            number_tokenizer(vocabulary, 0),
            DataSpec("here", 10, 3, 3, max_length=max_length),
            TASK,
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
