"""Data: exact, disjoint, stratified splits of what a user has; and bad data refused with the way out."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from builders import data_spec as spec
from builders import make_rows, write_csv
from peft_methods import data
from peft_methods.errors import DataError


def keys(table: Any) -> set[str]:
    return {" ".join(text.casefold().split()) for text in table.texts}


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return make_rows(100)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 5))
def test_stratified_order_is_a_shuffle_whose_slices_keep_the_shares(
    labels: list[int], seed: int
) -> None:
    order = data.stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    half = Counter(labels[row] for row in order[: len(order) // 2])
    for label, count in Counter(labels).items():
        assert abs(half[label] - count * (len(order) // 2) / len(order)) <= 1 + len(set(labels))


def test_sizes_are_exact_disjoint_and_stratified(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    got = data.load(spec(write_csv(tmp_path, train=rows[:60], test=rows[60:]))).splits
    assert [len(got[name]) for name in data.SPLITS] == [20, 10, 10]
    assert not keys(got["train"]) & keys(got["validation"])
    assert not keys(got["train"]) & keys(got["test"])
    assert all(sum(table.labels) * 2 == len(table) for table in got.values())


def test_all_takes_what_is_left(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    got = data.load(
        spec(write_csv(tmp_path, train=rows[:60], test=rows[60:]), train="all", test="all")
    ).splits
    assert [len(got[name]) for name in data.SPLITS] == [50, 10, 40]


def test_the_seed_chooses_the_rows_and_nothing_else_does(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    folder = write_csv(tmp_path, train=rows[:60], test=rows[60:])
    first, again, other = (data.load(spec(folder, seed=s)).facts.fingerprint for s in (0, 0, 1))
    assert first == again != other


def test_a_sorted_source_is_no_trap(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    by_label = sorted(rows, key=lambda row: str(row["label"]))
    got = data.load(
        spec(write_csv(tmp_path, train=by_label, test=make_rows(20, seed=9)), train=10)
    ).splits
    assert sum(got["train"].labels) == 5


@pytest.mark.parametrize("writer", ["csv", "tsv", "jsonl", "parquet", "saved"])
def test_every_format_gives_the_same_rows(
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
    reference = data.load(spec(write_csv(tmp_path / "r", train=rows[:60], test=rows[60:])))
    assert data.load(spec(tmp_path / "d")).facts.fingerprint == reference.facts.fingerprint


def test_words_that_look_like_gaps_stay_words(tmp_path: Path) -> None:
    texts = ["NA", "null", "None", "nan"]
    rows = [{"text": f"{t} {i}" if i else t, "label": i % 2} for i in range(6) for t in texts]
    got = data.load(
        spec(write_csv(tmp_path, train=rows, test=make_rows(10)), train="all", validation=4)
    ).splits
    assert set(texts) <= {*got["train"].texts, *got["validation"].texts}


def test_labels_as_strings_become_classes(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    named = [{**row, "label": ("neg", "pos")[int(str(row["label"]))]} for row in rows]
    facts = data.load(spec(write_csv(tmp_path, train=named[:60], test=named[60:]))).facts
    assert facts.label_names == ("neg", "pos")
    assert facts.class_counts["test"] == (5, 5)


def test_pairs_and_other_column_names(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    pairs = [
        {"premise": r["text"], "hypothesis": f"so {r['text']}", "gold": r["label"]} for r in rows
    ]
    folder = write_csv(tmp_path, train=pairs[:60], test=pairs[60:])
    with pytest.raises(
        DataError,
        match=r"no label column among premise, hypothesis, gold.*--peft-set data.label=COLUMN",
    ):
        data.load(spec(folder))
    table = data.load(spec(folder, label="gold")).splits["train"]
    assert table.pairs is not None
    assert table.pairs[0] == f"so {table.texts[0]}"


def test_leaked_texts_go_from_train_with_a_count(tmp_path: Path) -> None:
    rows = make_rows(500)
    leak = {**rows[499], "text": f"  {str(rows[499]['text']).upper()} "}
    got = data.load(spec(write_csv(tmp_path, train=[*rows[:200], leak], test=rows[300:])))
    assert got.facts.removed["train_also_in_test"] == 1


def bad(tmp_path: Path, **splits: list[dict[str, object]]) -> str:
    with pytest.raises(DataError) as caught:
        data.load(spec(write_csv(tmp_path, **splits)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_data_is_refused_with_cause_and_way_out(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    train, test = rows[:60], rows[60:]
    cases: dict[str, tuple[dict[str, list[dict[str, object]]], str]] = {
        "no_test": ({"train": train}, r"no test split; found: train. Name a file test.parquet"),
        "no_train": ({"test": test}, r"no train split; found: test"),
        "leak": (
            {"train": rows, "test": test},
            r"40 of 40 test texts \(100.0%\) stand in train too .* Split the data anew",
        ),
        "one_class": (
            {
                "train": [{**r, "label": 1} for r in train],
                "test": [{**r, "label": 1} for r in test],
            },
            "one class only",
        ),
        "empty_text": (
            {"train": [*train, {"text": " ", "label": 1}], "test": test},
            r"1 of 61 rows of train have an empty .*row 60",
        ),
        "no_label": (
            {"train": [{"text": r["text"]} for r in train], "test": test},
            "no label column among text",
        ),
        "five": (
            {"train": rows[:5], "test": rows[5:8]},
            r"10 test rows wanted, 3 distinct rows of its test.*--peft-set data.test=3\.$",
        ),
        "fraction": (
            {"train": [{**r, "label": 0.5} for r in train], "test": test},
            "regression is not supported",
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
    for name, (splits, said) in cases.items():
        assert re.search(said, bad(tmp_path / name, **splits)), name


def test_multi_label_is_refused_by_name(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        pd.DataFrame([{**r, "label": [0, 1]} for r in part]).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    with pytest.raises(DataError, match="multi-label"):
        data.load(spec(tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as parquet"):
        data.load(spec(tmp_path))


def test_two_files_for_one_split_are_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    write_csv(tmp_path, train=rows)
    (tmp_path / "train.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"more than one file for train: train\.csv, train\.jsonl"):
        data.load(spec(tmp_path))


def test_no_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'nobody/nothing' is no folder here .*--peft-data DIR"):
        data.load(spec("nobody/nothing"))


def test_tokens_are_cut_counted_and_not_padded(
    tmp_path: Path, tiny_models: dict[str, Path], rows: list[dict[str, object]]
) -> None:
    texts = data.load(spec(write_csv(tmp_path, train=rows[:60], test=rows[60:])))
    tokens = data.tokenize(texts, AutoTokenizer.from_pretrained(tiny_models["bert"]), 10)
    lengths = tokens.train.lengths
    assert max(lengths) == 10
    assert min(lengths) < 10
    assert 0 < tokens.facts.truncated["train"] < 1
    assert [len(ids) for ids in tokens.train.tokens["input_ids"]] == list(lengths)


def test_json_lines_may_hold_any_character(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    strange = [{**row, "text": f"{row['text']} \u2028 \x85 end"} for row in rows]
    for name, part in (("train", strange[:60]), ("test", strange[60:])):
        (tmp_path / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in part), encoding="utf-8"
        )
    assert len(data.load(spec(tmp_path)).splits["train"]) == 20
    (tmp_path / "train.jsonl").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(DataError, match="each line should be a JSON object"):
        data.load(spec(tmp_path))


def test_class_names_are_those_of_the_label_column(
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
    assert data.load(spec(tmp_path)).facts.label_names == ("spam", "ham")
    assert data.load(spec(tmp_path, label="mood")).facts.label_names == ("sad", "happy")


def test_a_source_task_needs_no_test_split(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    assert len(data.load(spec(write_csv(tmp_path, train=rows), test=0)).splits["test"]) == 0
