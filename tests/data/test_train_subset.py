"""The rows of one size of a learning curve: nested, drawn by the seed, tested on the same rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from builders import TASK, data_spec, make_data
from peft_methods.data import splits
from peft_methods.data.facts import TextData
from peft_methods.utils.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("rows") / "words", 200, 60)


def loaded(folder: Path, size: int | None, seed: int = 0, **more: object) -> TextData:
    spec = data_spec(folder, train="all", validation=20, test=40, train_subset=size, **more)
    return splits.load(spec, TASK, subset_seed=seed)


@pytest.mark.parametrize("sizes", ["exact", "at_most"])
def test_subsets_are_nested_and_other_splits_stay(folder: Path, sizes: str) -> None:
    found = [loaded(folder, size, sizes=sizes) for size in (20, 60, 140)]
    texts = [set(one.splits["train"].texts) for one in found]
    assert [len(one) for one in texts] == [20, 60, 140]
    assert texts[0] < texts[1] < texts[2]
    for split in ("validation", "test"):
        assert len({tuple(one.splits[split].texts) for one in found}) == 1
    assert len({one.facts.fingerprint for one in found}) == 1  # that of the whole data


def test_each_seed_draws_rows_of_its_own(folder: Path) -> None:
    first, again, other = (loaded(folder, 60, seed) for seed in (0, 0, 1))
    assert first.splits["train"].texts == again.splits["train"].texts
    assert set(first.splits["train"].texts) != set(other.splits["train"].texts)
    assert first.splits["test"].texts == other.splits["test"].texts
    assert first.facts.fingerprint == other.facts.fingerprint


def test_facts_are_those_of_the_subset_with_the_shares_of_the_classes(folder: Path) -> None:
    found = loaded(folder, 30)
    assert sum(found.facts.class_counts["train"]) == 30
    counts = Counter(found.splits["train"].labels)
    assert abs(counts[0] - counts[1]) <= 2


def test_without_a_subset_all_rows_are_used(folder: Path) -> None:
    assert len(loaded(folder, None).splits["train"]) == 180


def test_too_many_rows_are_refused_with_the_largest_possible_number(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        loaded(folder, 181)
    assert "181 training rows requested, but only 180 distinct rows are left" in str(caught.value)
    assert "beside 20 validation and 40 test rows. Request up to 180." in str(caught.value)
    assert caught.value.setting == "data.train_subset"
