"""Records are read back unchanged, or refused with the file's name; rules on records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_record, random_record
from peft_methods.analysis import checks
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.record import SCHEMA_VERSION, record_without_result
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store, StoreError
from peft_methods.tasks.class_predictions import ClassPredictions


def test_store_reads_a_record_and_its_predictions_unchanged(tmp_path: Path) -> None:
    store, record = Store(tmp_path), make_record()
    predictions = ClassPredictions(np.asarray([[0.1, 2.0]], dtype=np.float32), np.asarray([1]))
    path = store.write(record, predictions)
    assert store.read(path) == record
    back = store.read_predictions(record)
    assert back is not None
    assert np.array_equal(back.logits, predictions.logits)
    assert store.read_predictions(make_record(fingerprint="other")) is None


numbers = (
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
)


@settings(max_examples=60)
@given(
    st.dictionaries(st.text(max_size=9), numbers, max_size=5),
    st.text(max_size=40),
    st.sampled_from(["ok", "oom", "failed", "timeout", "crashed", "skipped"]),
)
def test_store_reads_any_record_unchanged(
    tmp_path_factory: pytest.TempPathFactory, metrics: Any, message: str, status: Any
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    record = make_record(metrics=metrics, message=message, status=status)
    back = store.read(store.write(record))
    assert (back.metrics, back.message, back.status) == (metrics, message, status)


def test_store_refuses_a_truncated_record_with_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = store.write(make_record()).read_bytes()
    path = tmp_path / "cut.json"
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"cut\.json is not a valid record"):
            store.read(path)


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"schema_version": 1}', '{"cell": 3, "status": "fine"}', "\x00"]
)
def test_store_refuses_json_that_is_not_a_record_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    good, bad = Store(tmp_path).records()
    assert good == []
    assert len(bad) == 1
    assert "x.json is not a valid record" in str(bad[0])


def test_store_asks_for_an_update_for_a_newer_schema(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(schema_version=SCHEMA_VERSION + 1))
    _, bad = Store(tmp_path).records()
    assert "newer than" in str(bad[0])
    assert "update peft-methods" in str(bad[0])


def test_store_keeps_the_old_record_and_no_temporary_file_after_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path = store.write(make_record())
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(make_record(message="newer"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_store_prepare_refuses_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="Choose another folder for `results`"):
        Store(tmp_path / "file" / "store").prepare()


def test_fingerprint_is_equal_for_equal_runs_only() -> None:
    recipe = load_recipe("embedded")
    lora = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")
    other = load_recipe("embedded", ["methods.lora.rank=4"])
    facts: dict[str, Any] = {
        "weights": "w",
        "config": "c",
        "tokenizer": "t",
        "data": "d",
        "environment": {"torch": "1"},
    }
    first = lora[0].fingerprint(**facts)
    assert first == run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0].fingerprint(
        **facts
    )
    different = [
        lora[1].fingerprint(**facts),
        run_specs(other, chosen_methods(other, ["lora"])[0], "cpu")[0].fingerprint(**facts),
        *(
            lora[0].fingerprint(**{**facts, key: "x"})
            for key in ("weights", "config", "tokenizer", "data")
        ),
        lora[0].fingerprint(**{**facts, "environment": {"torch": "2"}}),
    ]
    assert len({first, *different}) == 8


def test_cells_without_a_result_are_not_judged() -> None:
    recipe = load_recipe("embedded")
    run = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0]
    assert checks.run_checks([record_without_result(run, "failed", "why")]) == []


@pytest.mark.parametrize(
    ("settings", "random_texts", "evidence"),
    [
        ([], False, "weights are random, so there is no quality to compare"),
        (
            [],
            True,
            "weights and texts are random (every row has the maximum of 64 tokens), "
            "so there is no quality to compare",
        ),
        (
            ["data.token_lengths=[4, 9]"],
            True,
            "weights and texts are random (row lengths are those of data.token_lengths), "
            "so there is no quality to compare",
        ),
    ],
)
def test_v501_notes_that_random_weights_have_no_quality(
    settings: list[str], random_texts: bool, evidence: str
) -> None:
    found = checks.run_checks(
        [random_record("lora", seed, *settings, random_texts=random_texts) for seed in (0, 1)]
    )
    assert [
        (finding.rule, finding.severity, finding.subject, finding.evidence) for finding in found
    ] == [("V501", "note", "embedded-lora", evidence)]
    assert "compare time, memory and parameters" in found[0].advice
    assert ("set data.token_lengths" in found[0].advice) == (random_texts and not settings)


def test_store_reads_a_curve_without_validation_and_v302_checks_its_loss(
    tmp_path: Path,
) -> None:
    store, record = Store(tmp_path), random_record()
    assert store.read(store.write(record)) == record
    infinite = make_record(
        spec=record.spec, epochs=({**record.epochs[0], "train_loss": float("inf")},)
    )
    assert "V302" in {finding.rule for finding in checks.run_checks([infinite])}
