"""Exact, disjoint, stratified splits of the user's data.

Bad data is refused with the cause and the remedy.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from builders import TASK, data_spec, make_rows, write_csv
from peft_methods.data import selection, splits, tokenize
from peft_methods.data.facts import SPLITS
from peft_methods.utils.errors import DataError


def keys(table: Any) -> set[str]:
    return {" ".join(text.casefold().split()) for text in table.texts}


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return make_rows(100)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 5))
def test_stratified_order_is_a_shuffle_whose_slices_keep_class_shares(
    labels: list[int], seed: int
) -> None:
    order = selection.stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    half = Counter(labels[row] for row in order[: len(order) // 2])
    for label, count in Counter(labels).items():
        assert abs(half[label] - count * (len(order) // 2) / len(order)) <= 1 + len(set(labels))


def test_load_returns_exact_disjoint_stratified_splits(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    got = splits.load(data_spec(write_csv(tmp_path, train=rows[:60], test=rows[60:])), TASK).splits
    assert [len(got[name]) for name in SPLITS] == [20, 10, 10]
    assert not keys(got["train"]) & keys(got["validation"])
    assert not keys(got["train"]) & keys(got["test"])
    assert all(sum(table.labels) * 2 == len(table) for table in got.values())


def test_load_gives_the_remaining_rows_to_all(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    got = splits.load(
        data_spec(write_csv(tmp_path, train=rows[:60], test=rows[60:]), train="all", test="all"),
        TASK,
    ).splits
    assert [len(got[name]) for name in SPLITS] == [50, 10, 40]


def test_load_selects_rows_by_the_data_seed_only(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    folder = write_csv(tmp_path, train=rows[:60], test=rows[60:])
    first, again, other = (
        splits.load(data_spec(folder, seed=s), TASK).facts.fingerprint for s in (0, 0, 1)
    )
    assert first == again != other


def test_load_mixes_the_classes_of_a_sorted_source(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    by_label = sorted(rows, key=lambda row: str(row["label"]))
    got = splits.load(
        data_spec(write_csv(tmp_path, train=by_label, test=make_rows(20, seed=9)), train=10), TASK
    ).splits
    assert sum(got["train"].labels) == 5


@pytest.mark.parametrize("writer", ["csv", "tsv", "jsonl", "parquet", "saved"])
def test_load_returns_the_same_rows_from_every_format(
    tmp_path: Path, rows: list[dict[str, object]], writer: str
) -> None:
    frames = {"train": pd.DataFrame(rows[:60]), "test": pd.DataFrame(rows[60:])}
    if writer == "saved":
        datasets.DatasetDict(
            {k: datasets.Dataset.from_pandas(f) for k, f in frames.items()}
        ).save_to_disk(tmp_path / "d")
    else:
        (tmp_path / "d").mkdir()
        for name, frame in frames.items():
            path = tmp_path / "d" / f"{name}.{writer}"
            {
                "csv": lambda p, f: f.to_csv(p, index=False),
                "tsv": lambda p, f: f.to_csv(p, index=False, sep="\t"),
                "jsonl": lambda p, f: f.to_json(p, orient="records", lines=True),
                "parquet": lambda p, f: f.to_parquet(p),
            }[writer](path, frame)
    reference = splits.load(
        data_spec(write_csv(tmp_path / "r", train=rows[:60], test=rows[60:])), TASK
    )
    assert (
        splits.load(data_spec(tmp_path / "d"), TASK).facts.fingerprint
        == reference.facts.fingerprint
    )


def test_load_keeps_words_that_look_like_missing_values(tmp_path: Path) -> None:
    texts = ["NA", "null", "None", "nan"]
    rows = [{"text": f"{t} {i}" if i else t, "label": i % 2} for i in range(6) for t in texts]
    got = splits.load(
        data_spec(write_csv(tmp_path, train=rows, test=make_rows(10)), train="all", validation=4),
        TASK,
    ).splits
    assert set(texts) <= {*got["train"].texts, *got["validation"].texts}


def test_load_turns_string_labels_into_classes(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    named = [{**row, "label": ("neg", "pos")[int(str(row["label"]))]} for row in rows]
    facts = splits.load(
        data_spec(write_csv(tmp_path, train=named[:60], test=named[60:])), TASK
    ).facts
    assert facts.label_names == ("neg", "pos")
    assert facts.class_counts["test"] == (5, 5)


def test_load_finds_pair_columns_and_a_named_label_column(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    pairs = [
        {"premise": r["text"], "hypothesis": f"so {r['text']}", "gold": r["label"]} for r in rows
    ]
    folder = write_csv(tmp_path, train=pairs[:60], test=pairs[60:])
    with pytest.raises(
        DataError,
        match=r"no label column among premise, hypothesis, gold\. Set data\.label to the name",
    ):
        splits.load(data_spec(folder), TASK)
    table = splits.load(data_spec(folder, label="gold"), TASK).splits["train"]
    assert table.pairs is not None
    assert table.pairs[0] == f"so {table.texts[0]}"


def test_load_removes_leaked_texts_from_train_and_counts_them(tmp_path: Path) -> None:
    rows = make_rows(500)
    leak = {**rows[499], "text": f"  {str(rows[499]['text']).upper()} "}
    got = splits.load(
        data_spec(write_csv(tmp_path, train=[*rows[:200], leak], test=rows[300:])), TASK
    )
    assert got.facts.removed["train_also_in_test"] == 1


def bad(tmp_path: Path, **parts: list[dict[str, object]]) -> str:
    with pytest.raises(DataError) as caught:
        splits.load(data_spec(write_csv(tmp_path, **parts)), TASK)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_refuses_bad_data_with_cause_and_remedy(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    train, test = rows[:60], rows[60:]
    cases: dict[str, tuple[dict[str, list[dict[str, object]]], str]] = {
        "no_test": ({"train": train}, r"no test split; found: train. Name a file test.parquet"),
        "no_train": ({"test": test}, r"no train split; found: test"),
        "leak": (
            {"train": rows, "test": test},
            r"40 of 40 test texts \(100.0%\) also occur in train .* Split the data again",
        ),
        "one_class": (
            {
                "train": [{**r, "label": 1} for r in train],
                "test": [{**r, "label": 1} for r in test],
            },
            "only one class",
        ),
        "empty_text": (
            {"train": [*train, {"text": " ", "label": 1}], "test": test},
            r"1 of 61 rows of train have an empty .*row 60",
        ),
        "no_label": (
            {"train": [{"text": r["text"]} for r in train], "test": test},
            "no label column among text.* For other labels than classes set task: .regression",
        ),
        "five": (
            {"train": rows[:5], "test": rows[5:8]},
            r"10 test rows requested, but .* only 3 distinct rows in its test.*data\.test = 3\.$",
        ),
        "fraction": (
            {"train": [{**r, "label": 0.5} for r in train], "test": test},
            "Set task = .regression. for scores",
        ),
        "gap": (
            {"train": [*train, {"text": "so so", "label": ""}], "test": test},
            r"'label' in row 60 of train is empty",
        ),
        "new_label": (
            {"train": train, "test": [{**r, "label": 7} for r in test]},
            r"label '7' in test does not occur in train \(0, 1\)",
        ),
        "hidden": ({"train": train, "test": [{**r, "label": -1} for r in test]}, "has no labels"),
        "ids": (
            {"train": [{**r, "label": f"id{i}"} for i, r in enumerate(train)], "test": test},
            "is data.label the right column",
        ),
        "test_column": (
            {"train": train, "test": [{"text": r["text"]} for r in test]},
            "column 'label' of train is missing in test",
        ),
    }
    for name, (parts, expected) in cases.items():
        assert re.search(expected, bad(tmp_path / name, **parts)), name


def test_load_refuses_multi_label_data(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        pd.DataFrame([{**r, "label": [0, 1]} for r in part]).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    with pytest.raises(DataError, match=r"several labels per row are for the task multilabel"):
        splits.load(data_spec(tmp_path), TASK)


def test_load_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as parquet"):
        splits.load(data_spec(tmp_path), TASK)


def test_load_names_files_of_unknown_formats(tmp_path: Path) -> None:
    (tmp_path / "train.iob").write_text("a O", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"found: nothing\. The format of 'train\.iob' is unknown\. Allowed: csv, "
    ):
        splits.load(data_spec(tmp_path), TASK)


def test_load_refuses_two_files_for_one_split(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    write_csv(tmp_path, train=rows)
    (tmp_path / "train.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"more than one file for train: train\.csv, train\.jsonl"):
        splits.load(data_spec(tmp_path), TASK)


def test_load_without_hub_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError,
        match=r"'nobody/nothing' is not a local folder .*set data\.source to a local folder",
    ):
        splits.load(data_spec("nobody/nothing"), TASK)


def test_tokenize_truncates_counts_and_does_not_pad(
    tmp_path: Path, tiny_models: dict[str, Path], rows: list[dict[str, object]]
) -> None:
    spec = replace(data_spec(write_csv(tmp_path, train=rows[:60], test=rows[60:])), max_length=10)
    texts, tokenizer = splits.load(spec, TASK), AutoTokenizer.from_pretrained(tiny_models["bert"])
    tokens = tokenize.tokenize(texts, tokenizer, spec, TASK)
    lengths = tokens.train.lengths
    assert max(lengths) == 10
    assert min(lengths) < 10
    assert 0 < tokens.facts.truncated["train"] < 1
    assert [len(ids) for ids in tokens.train.tokens["input_ids"]] == list(lengths)


def test_load_reads_any_character_from_json_lines(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    strange = [{**row, "text": f"{row['text']} \u2028 \x85 end"} for row in rows]
    for name, part in (("train", strange[:60]), ("test", strange[60:])):
        (tmp_path / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in part), encoding="utf-8"
        )
    assert len(splits.load(data_spec(tmp_path), TASK).splits["train"]) == 20
    (tmp_path / "train.jsonl").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(DataError, match="each line should be a JSON object"):
        splits.load(data_spec(tmp_path), TASK)


def test_load_takes_class_names_from_the_label_column(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["spam", "ham"]),
        mood=datasets.ClassLabel(names=["sad", "happy"]),
    )
    saved = {
        name: datasets.Dataset.from_list(
            [{**row, "mood": row["label"]} for row in part], features=features
        )
        for name, part in (("train", rows[:60]), ("test", rows[60:]))
    }
    datasets.DatasetDict(saved).save_to_disk(tmp_path)
    assert splits.load(data_spec(tmp_path), TASK).facts.label_names == ("spam", "ham")
    assert splits.load(data_spec(tmp_path, label="mood"), TASK).facts.label_names == (
        "sad",
        "happy",
    )


def test_load_needs_no_test_split_for_zero_test_rows(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    assert (
        len(splits.load(data_spec(write_csv(tmp_path, train=rows), test=0), TASK).splits["test"])
        == 0
    )
