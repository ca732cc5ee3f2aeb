"""Roles of splits, splits by sentence, overlapping texts, and folders in hub layout."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import FILLER, TASK, data_spec, make_rows, write_csv
from peft_methods.data import overlap
from peft_methods.data.facts import SPLITS
from peft_methods.data.splits import load
from peft_methods.recipes.loading import load_recipe
from peft_methods.utils.errors import DataError

Rows = list[dict[str, Any]]


def sentences(count: int, seed: int) -> Rows:
    """Return distinct sentences of twelve words, balanced, each with a unique first word."""
    rng = random.Random(seed)
    marks = [
        f"{a}{b}{seed}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"
    ]
    return [
        {"text": " ".join([marks[row], *rng.choices(FILLER, k=11)]), "label": row % 2}
        for row in range(count)
    ]


def phrases(rows: Rows) -> Rows:
    """Return every sentence with its first half, its second half and its first word.

    A treebank splits sentences in the same way.
    """
    cut = [
        {"text": text, "label": row["label"]}
        for row in rows
        for text in (row["text"], row["text"][: len(row["text"]) // 2].rpartition(" ")[0])
    ]
    return (
        cut
        + [{"text": row["text"].split(" ", 6)[6], "label": row["label"]} for row in rows]
        + [{"text": row["text"].split()[0], "label": row["label"]} for row in rows]
    )


def inside(text: str, other: str) -> bool:
    return f" {' '.join(overlap.words_of(text))} " in f" {' '.join(overlap.words_of(other))} "


texts = st.lists(st.text(alphabet="ab .", max_size=9), max_size=9)


@given(texts, texts)
def test_found_within_agrees_with_comparing_all_pairs(
    needles: list[str], haystacks: list[str]
) -> None:
    found = list(
        overlap.found_within(
            [overlap.words_of(t) for t in needles], [overlap.words_of(t) for t in haystacks]
        )
    )
    wanted = {
        (n, h)
        for n, needle in enumerate(needles)
        if overlap.words_of(needle)
        for h, hay in enumerate(haystacks)
        if inside(needle, hay)
    }
    assert set(found) == wanted


@given(texts)
def test_whole_sentences_are_contained_in_no_other_and_contain_all_others(rows: list[str]) -> None:
    whole = overlap.whole_sentences(rows)
    assert not any(inside(rows[a], rows[b]) for a in whole for b in whole if a != b)
    assert overlap.rows_within(rows, [rows[row] for row in whole]) == {
        row for row, text in enumerate(rows) if overlap.words_of(text)
    }


def test_measure_distinguishes_long_texts_with_the_same_beginning() -> None:
    start = "one two three four five "
    assert overlap.measure(
        [start + "six", start + "seven"], ["so " + start + "Six!"]
    ) == overlap.Overlap(within=0.5, around=0.0)


def test_measure_returns_shares_of_contained_and_containing_texts() -> None:
    train = ["A fine film, with a plot.", "the end", "dull"]
    assert overlap.measure(["fine FILM"], train) == overlap.Overlap(1.0, 0.0)
    assert overlap.measure(["it was the end"], train) == overlap.Overlap(
        0.0, 1.0
    )  # two of four words
    assert overlap.measure(["and so it was the end"], train) == overlap.Overlap(
        0.0, 0.0
    )  # two of six words are too few
    assert overlap.measure(["film", "dull", "...", "a fine plot"], train) == overlap.Overlap(
        0.0, 0.0
    )
    assert overlap.measure([], train) == overlap.Overlap(0.0, 0.0)


def test_load_measures_overlap_except_for_pairs(tmp_path: Path) -> None:
    rows = sentences(60, 1)
    halves = [{**row, "text": " ".join(row["text"].split()[:6])} for row in rows[:20]]
    facts = load(
        data_spec(
            write_csv(tmp_path / "a", train=rows, test=halves), train="all", validation=4, test=20
        ),
        TASK,
    ).facts
    assert facts.overlap["test"].within > 0.7
    assert facts.overlap["validation"].within == 0.0
    pairs = [
        {"premise": row["text"], "hypothesis": f"so {number}", "label": row["label"]}
        for number, row in enumerate(rows)
    ]
    assert (
        load(
            data_spec(write_csv(tmp_path / "b", train=pairs[:40], test=pairs[40:])), TASK
        ).facts.overlap
        == {}
    )


def test_load_measures_the_overlap_of_many_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [*sentences(500, 2), *sentences(500, 3)]
    counted = []

    def count(*texts: Any) -> overlap.Overlap:
        counted.append(texts)
        return real(*texts)

    real = overlap.measure
    monkeypatch.setattr(overlap, "measure", count)

    def overlaps(name: str, test: list[dict[str, Any]]) -> dict[str, overlap.Overlap]:
        folder = write_csv(tmp_path / name, train=rows, test=test)
        spec = data_spec(folder, train="all", validation=4, test=len(test), leakage_limit=1.0)
        return dict(load(spec, TASK).facts.overlap)

    halves = [{**row, "text": " ".join(row["text"].split()[:6])} for row in rows[:20]]
    first = overlaps("a", halves)
    assert len(counted) == 2  # validation and test
    assert overlaps("b", halves) == first
    assert len(counted) == 2
    assert overlaps("c", halves[:19])["test"].within > 0.7
    assert len(counted) == 3  # the test rows are others, those for validation are the same


def hub_sst2(folder: Path) -> Path:
    """Write a folder with the columns and splits of stanfordnlp/sst2.

    Phrases end with a blank, test labels are hidden, and the Parquet files are in `data`.
    """
    splits = {
        "train": phrases(sentences(60, 1)),
        "validation": sentences(20, 2),
        "test": [{**row, "label": -1} for row in sentences(20, 3)],
    }
    (folder / "data").mkdir(parents=True)
    for name, rows in splits.items():
        frame = pd.DataFrame(
            [
                {"idx": idx, "sentence": f"{row['text']} ", "label": row["label"]}
                for idx, row in enumerate(rows)
            ]
        )
        frame.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


def sized(name: str, folder: Path, train: Any, validation: int, test: int) -> Any:
    """Return the data data_spec of a shipped recipe, with a small folder as source."""
    settings = [f"data.train={train}", f"data.validation={validation}", f"data.test={test}"]
    return load_recipe(name, settings, data=str(folder)).data


def test_sst2_bert_tests_on_development_sentences_and_validates_on_whole_sentences(
    tmp_path: Path,
) -> None:
    got = load(sized("sst2_bert", hub_sst2(tmp_path), 90, 16, 20), TASK)
    train, validation, test = (got.splits[name].texts for name in SPLITS)
    assert (len(train), len(validation), len(test)) == (90, 16, 20)
    assert {text.strip() for text in test} == {row["text"] for row in sentences(20, 2)}
    assert {text.strip() for text in validation} <= {row["text"] for row in sentences(60, 1)}
    assert not [
        1 for text in validation for other in train if inside(text, other) or inside(other, text)
    ]
    assert got.facts.removed["train_part_of_validation"] >= 3 * 16
    assert got.facts.overlap["validation"] == overlap.Overlap(0.0, 0.0)
    assert sum(got.splits["validation"].labels) == 8


def test_sst2_bert_as_published_tests_on_phrases_of_train_sentences(tmp_path: Path) -> None:
    got = load(sized("sst2_bert_as_published", hub_sst2(tmp_path), "all", 20, 60), TASK)
    assert {len(got.splits[name]) for name in SPLITS} == {60 * 4 - 60, 20, 60}
    assert got.facts.overlap["test"].within > 0.3
    assert not set(got.splits["test"].texts) & set(got.splits["train"].texts)
    assert {text.strip() for text in got.splits["validation"].texts} == {
        row["text"] for row in sentences(20, 2)
    }


def test_load_names_the_remedy_for_hidden_test_labels(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r'the test split has no labels .*data\.test_split = "validation"'
    ):
        load(data_spec(hub_sst2(tmp_path)), TASK)


def test_load_ignores_hidden_labels_for_zero_test_rows(tmp_path: Path) -> None:
    got = load(data_spec(hub_sst2(tmp_path), train=40, validation=10, test=0), TASK).splits
    assert [len(got[name]) for name in SPLITS] == [40, 10, 0]


def test_trec_bert_reads_coarse_labels_and_the_labels_of_other_folders(tmp_path: Path) -> None:
    rows = [
        {**row, "coarse_label": row["label"], "fine_label": number % 7}
        for number, row in enumerate(make_rows(300))
    ]
    hub = [{key: row[key] for key in ("text", "coarse_label", "fine_label")} for row in rows]
    for folder, part in (
        ("hub", hub),
        ("mine", [{"text": row["text"], "label": row["label"]} for row in rows]),
    ):
        got = load(
            sized(
                "trec_bert",
                write_csv(tmp_path / folder, train=part[:200], test=part[200:]),
                "all",
                20,
                100,
            ),
            TASK,
        )
        assert got.facts.label_names == ("0", "1")
        assert len(got.splits["train"]) == 180


def test_load_allows_a_leak_up_to_the_leakage_limit(tmp_path: Path) -> None:
    rows = make_rows(300)
    folder = write_csv(tmp_path, train=rows[:202], test=rows[200:])
    with pytest.raises(
        DataError, match=r"2 of 100 test texts \(2\.0%\).*set data\.leakage_limit to a higher share"
    ):
        load(data_spec(folder), TASK)
    assert (
        load(data_spec(folder, leakage_limit=0.03), TASK).facts.removed["train_also_in_test"] == 2
    )


def test_load_falls_back_to_the_test_split_if_test_split_is_missing(tmp_path: Path) -> None:
    rows = sentences(80, 1)
    got = load(
        sized("sst2_bert", write_csv(tmp_path, train=rows[:60], test=rows[60:]), 40, 10, 20), TASK
    ).splits
    assert set(got["test"].texts) == {row["text"] for row in rows[60:]}


def test_load_names_other_splits_if_there_is_no_test_split(tmp_path: Path) -> None:
    rows = sentences(80, 1)
    with pytest.raises(
        DataError,
        match=r'no test split; found: train\. Name a file .*data\.test_split = "train"',
    ):
        load(data_spec(write_csv(tmp_path / "a", train=rows)), TASK)
    with pytest.raises(
        DataError, match=r'found: train, validation\. .*data\.test_split = "validation"'
    ):
        load(data_spec(write_csv(tmp_path / "b", train=rows[:60], validation=rows[60:])), TASK)


def test_load_refuses_sentence_validation_with_too_few_sentences_or_pairs(tmp_path: Path) -> None:
    rows = phrases(sentences(20, 1))
    folder = write_csv(tmp_path / "a", train=rows, test=sentences(20, 2))
    with pytest.raises(
        DataError,
        match=r'21 validation sentences requested, but only 20 texts .*validation_by = "rows"',
    ):
        load(data_spec(folder, validation=21, validation_by="sentences"), TASK)
    pairs = [
        {"premise": row["text"], "hypothesis": row["text"], "label": row["label"]} for row in rows
    ]
    with pytest.raises(DataError, match="is for single texts, not for pairs"):
        load(
            data_spec(
                write_csv(tmp_path / "b", train=pairs[:40], test=pairs[40:]),
                validation_by="sentences",
            ),
            TASK,
        )


def test_load_joins_shards_but_refuses_two_data_sets(tmp_path: Path) -> None:
    rows = make_rows(100)
    (tmp_path / "plain_text").mkdir()
    for number, part in enumerate((rows[:30], rows[30:60])):
        pd.DataFrame(part).to_parquet(
            tmp_path / "plain_text" / f"train-0000{number}-of-00002.parquet"
        )
    pd.DataFrame(rows[60:]).to_parquet(tmp_path / "plain_text" / "test-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("a card", encoding="utf-8")
    assert len(load(data_spec(tmp_path, train="all"), TASK).splits["train"]) == 50
    write_csv(tmp_path / "other", train=rows)
    with pytest.raises(
        DataError,
        match=r"data set: other, plain_text\. Give one of them: data\.source = .*other",
    ):
        load(data_spec(tmp_path), TASK)


@pytest.mark.parametrize(
    "name",
    [
        *("imdb_roberta", "imdb_mpnet", "imdb_decoder"),
        *("sst2_bert", "sst2_bert_as_published", "trec_bert"),
    ],
)
def test_load_without_hub_fails_in_one_line_for_every_recipe(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError,
        match=r"is not a local folder and could not be loaded from the hub .*to a local folder\.$",
    ) as caught:
        load(load_recipe(name).data, TASK)
    assert "\n" not in str(caught.value)
