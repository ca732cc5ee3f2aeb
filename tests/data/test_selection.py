"""Sizes as upper limits: what is there is used, and missing splits are cut from train."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import TASK, data_spec, make_rows, write_csv
from peft_methods.data.facts import SPLITS, TextData
from peft_methods.data.selection import LEAST_ROWS, limited_sizes
from peft_methods.data.splits import load
from peft_methods.utils.errors import DataError

LIMITS = st.integers(1, 500) | st.just("all")


def loaded(folder: Path, *sizes: Any, **more: Any) -> TextData:
    train, validation, test = sizes or (400, 150, 500)
    return load(data_spec(folder, train, validation, test, sizes="at_most", **more), TASK)


def sizes_of(data: TextData) -> list[int]:
    return [len(data.splits[name]) for name in SPLITS]


@given(st.dictionaries(st.sampled_from(SPLITS), LIMITS, min_size=1), st.integers(0, 2000))
def test_limited_sizes_fit_the_pool_and_the_limits(
    limits: dict[str, int | str], available: int
) -> None:
    sizes = limited_sizes(limits, available)
    assert sum(sizes.values()) <= available
    assert all(limits[name] == "all" or size <= int(limits[name]) for name, size in sizes.items())
    if "all" in limits.values() or sum(map(int, limits.values())) >= available:
        assert sum(sizes.values()) == available  # no row is left out while there is room


@pytest.mark.parametrize(
    ("limits", "available", "expected"),
    [
        ((400, 150, 500), 212, (128, 42, 42)),
        ((400, 150, 500), 1000, (400, 150, 450)),
        ((400, 150, 500), 5000, (400, 150, 500)),
        (("all", 500, 500), 600, (360, 120, 120)),
        (("all", 20, 60), 240, (160, 20, 60)),
        (("all", "all", "all"), 100, (60, 20, 20)),
    ],
)
def test_limited_sizes_of_one_file(limits: Any, available: int, expected: Any) -> None:
    wanted = dict(zip(reversed(SPLITS), reversed(limits), strict=True))
    assert tuple(limited_sizes(wanted, available)[name] for name in SPLITS) == expected


def test_a_small_file_is_cut_into_disjoint_stratified_splits(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(212))
    data = loaded(folder)
    assert sizes_of(data) == [128, 42, 42]
    assert len({text for table in data.splits.values() for text in table.texts}) == 212
    assert all(abs(2 * sum(table.labels) - len(table)) <= 2 for table in data.splits.values())
    assert data.facts.drawn_from == dict.fromkeys(SPLITS, "train")
    assert data.facts.fingerprint == loaded(folder).facts.fingerprint
    assert data.facts.fingerprint != loaded(folder, seed=1).facts.fingerprint


def test_splits_of_their_own_are_used_whole(tmp_path: Path) -> None:
    rows = make_rows(200)
    data = loaded(write_csv(tmp_path, train=rows[:100], validation=rows[100:130], test=rows[130:]))
    assert sizes_of(data) == [100, 30, 70]
    assert data.facts.drawn_from == {name: name for name in SPLITS}


def test_test_is_cut_from_train_beside_a_validation_split(tmp_path: Path) -> None:
    rows = make_rows(200)
    data = loaded(write_csv(tmp_path, train=rows[:150], dev=rows[150:]))
    assert sizes_of(data) == [120, 50, 30]
    assert data.facts.drawn_from["test"] == "train"


def test_too_few_rows_are_refused_with_the_least_number(tmp_path: Path) -> None:
    rows = make_rows(60)
    with pytest.raises(DataError, match=r"49 distinct .* 31 train, 9 validation, 9 test") as caught:
        loaded(write_csv(tmp_path / "few", train=rows[:49]))
    assert "At least 50 are needed here" in str(caught.value)
    assert sizes_of(loaded(write_csv(tmp_path / "enough", train=rows[:50]))) == [30, 10, 10]
    with pytest.raises(DataError, match=r"8 distinct rows in its test split are too few"):
        loaded(write_csv(tmp_path / "test", train=rows[:52], test=rows[52:]))
    small = loaded(write_csv(tmp_path / "asked", train=rows[:30]), 20, 5, 5)
    assert sizes_of(small) == [20, 5, LEAST_ROWS // 2]


def test_whole_sentences_for_validation_are_upper_limits_too(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "single", train=make_rows(100), test=make_rows(40, seed=9))
    data = loaded(folder, validation_by="sentences")
    assert len(data.splits["validation"]) == 20
    pairs = [
        {"premise": row["text"], "hypothesis": f"so {row['text']}", "label": row["label"]}
        for row in make_rows(100)
    ]
    folder = write_csv(tmp_path / "pairs", train=pairs)
    assert sizes_of(loaded(folder, validation_by="sentences")) == [60, 20, 20]


def refused(folder: Path, *sizes: int, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        loaded(folder, *sizes, validation_by="sentences", **more)
    return str(caught.value)


def test_too_few_rows_for_validation_sentences_are_counted_in_the_source(tmp_path: Path) -> None:
    rows = make_rows(120)
    message = refused(write_csv(tmp_path / "one", train=rows[:60]))
    assert (
        "60 distinct rows in its train split are too few: they give 39 train, 12 validation, 9 test"
    ) in message
    assert "At least 62 are needed here" in message
    assert 'cut validation by rows (data.validation_by = "rows")' in message
    assert sizes_of(loaded(write_csv(tmp_path / "62", train=rows[:62])))[2] >= LEAST_ROWS
    again = loaded(write_csv(tmp_path / "enough", train=rows[:62]), validation_by="sentences")
    assert sizes_of(again) == [40, 12, 10]

    folder = write_csv(tmp_path / "test", train=rows[:45], test=rows[60:])
    message = refused(folder)
    assert "45 distinct rows in its train split are too few: they give 36 train, 9 val" in message
    assert "At least 50 are needed here" in message
    assert "by rows" not in message  # as few


def test_too_few_whole_sentences_are_counted_in_the_source(tmp_path: Path) -> None:
    """Eight sentences that contain all other texts, so that nothing is left for train."""
    whole = [f"{mark}{mark} one two three four five six" for mark in "abcdefgh"]
    texts = [text.rsplit(" ", cut)[0] if cut else text for text in whole for cut in range(7)]
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    folder = write_csv(tmp_path, train=rows, test=make_rows(20, seed=9))
    message = refused(folder, 10, 10, 10)
    assert "56 distinct rows in its train split are too few: they give 0 train, 8 val" in message


def test_exact_sizes_beside_validation_sentences_say_what_was_cut(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(60), test=make_rows(20, seed=9))
    spec = data_spec(folder, 55, 10, 10, validation_by="sentences")
    message = "only 50 distinct rows in its train split beside the 10 validation sentences"
    with pytest.raises(DataError, match=message):
        load(spec, TASK)


def test_exact_sizes_are_refused_and_name_the_setting(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, train=make_rows(30), test=make_rows(20, seed=9))
    with pytest.raises(DataError, match=r'Set data\.sizes = "at_most" to use what is there'):
        load(data_spec(folder, 400, 10, 10), TASK)


def test_classes_keep_their_shares_in_every_split(tmp_path: Path) -> None:
    rows = [{**row, "label": "abcde"[number % 5]} for number, row in enumerate(make_rows(212))]
    for table in loaded(write_csv(tmp_path, train=rows)).splits.values():
        assert max(Counter(table.labels).values()) - min(Counter(table.labels).values()) <= 3
