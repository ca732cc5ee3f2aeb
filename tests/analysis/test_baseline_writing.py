"""Baselines of several sessions: what is added, refused and read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_record
from peft_methods.analysis.baseline import EARLIER, read_baseline
from peft_methods.analysis.baseline_writing import with_session, write_baseline
from peft_methods.runs.record import SCHEMA_VERSION
from peft_methods.runs.store import StoreError
from peft_methods.utils.errors import OptionError

RECORD = make_record()
SPEC = RECORD.spec.to_json()
KEY = ("embedded", "lora")


def document(*values: float | None, **changes: Any) -> dict[str, Any]:
    info = {
        "schema_version": SCHEMA_VERSION,
        "recipe": "embedded",
        "method": "lora",
        "seeds": list(range(len(values))),
        "metrics": {"accuracy": list(values)},
        "spec": SPEC,
        "data": RECORD.data,
        "environment": RECORD.environment,
    }
    return {
        "datetime": "2026-11-29T08:00:00",
        "commit_info": {"id": "c0ffee"},
        "benchmarks": [{"param": "embedded-lora", "extra_info": {**info, **changes}}],
    }


def append(path: Path, one: dict[str, Any]) -> None:
    write_baseline(path, with_session(path, one))


def other_settings() -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    spec["recipe"]["budget"]["epochs"] = 7
    return spec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spec": other_settings()}, "embedded-lora differs in budget.epochs 2 → 7"),
        ({"data": {"fingerprint": "other"}}, "embedded-lora differs in data f → other"),
        (
            {"environment": {"device_name": "NVIDIA H100", "device": "cuda"}},
            "embedded-lora differs in device a cpu, 2 threads → NVIDIA H100",
        ),
    ],
)
def test_other_runs_are_not_added(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = tmp_path / "base.json"
    append(path, document(0.9))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is of other runs") as error:
        append(path, document(0.9, **changes))
    assert expected in str(error.value)
    assert str(error.value).endswith("Write a baseline of its own.")
    assert path.read_bytes() == before


def test_other_versions_are_added(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    append(path, document(0.9))
    newer = {**RECORD.environment, "packages": {"torch": "2.12.0"}}
    append(path, document(0.8, environment=newer))
    assert len(read_baseline(path).entries[KEY].sessions) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"benchmarks": []}', "\x00"])
def test_nothing_is_added_to_a_damaged_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="baseline"):
        append(path, document(0.9))
    assert path.read_text(encoding="utf-8") == text
    with pytest.raises(OptionError, match="baseline"):
        read_baseline(path)


def test_invalid_earlier_session_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(json.dumps({**document(0.9), EARLIER: [{"benchmarks": 3}]}), encoding="utf-8")
    with pytest.raises(StoreError, match="is invalid at earlier_sessions"):
        append(path, document(0.9))


def test_file_of_one_session_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(json.dumps(document(0.9, 0.8)), encoding="utf-8")
    baseline = read_baseline(path)
    assert baseline.entries[KEY].sessions == (baseline.entries[KEY],)
    assert "sessions" not in str(baseline)
    append(path, document(0.7, 0.6))
    assert [one.values("accuracy") for one in read_baseline(path).entries[KEY].sessions] == [
        [0.9, 0.8],
        [0.7, 0.6],
    ]


@given(
    st.lists(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=3), min_size=1, max_size=4)
)
def test_sessions_are_read_back_as_they_were_written(sessions: list[list[float | None]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "base.json"
        for values in sessions:
            append(path, document(*values))
        found = read_baseline(path).entries[KEY].sessions
    assert [list(one.metrics["accuracy"]) for one in found] == sessions
    assert [one.seeds for one in found] == [tuple(range(len(one))) for one in sessions]
    assert all(math.isfinite(value) for one in found for value in one.values("accuracy"))
