"""Records read by the thousand are those that the store reads one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import changed_record, make_record, missing, write_results
from peft_methods.runs.record import Record
from peft_methods.runs.record_reader import RecordReader
from peft_methods.runs.store import Store, StoreError


def written(folder: Path, *records: Record) -> list[Path]:
    store = Store(folder)
    store.prepare()
    return [store.write(record) for record in records]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    write_results(tmp_path, ("full", "lora", "ia3"), seeds=3)
    written(
        tmp_path,
        missing("qlora", "oom", "no memory left"),
        changed_record("bitfit", 7, fingerprint="bitfit7"),
    )
    return sorted(tmp_path.glob("*.json"))


def test_records_are_those_of_the_store(paths: list[Path]) -> None:
    reader, store = RecordReader(), Store(paths[0].parent)
    found = [reader.read(path) for path in paths]
    assert found == [store.read(path) for path in paths]
    assert [one.to_json() for one in found] == [store.read(path).to_json() for path in paths]
    assert {type(one) for one in found} == {Record}
    assert reader.records(paths[0].parent) == store.records()


def test_equal_parts_are_kept_once(paths: list[Path]) -> None:
    records, _ = RecordReader().records(paths[0].parent)
    first, second, *_ = (record for record in records if record.method_name == "lora")
    assert first.seed != second.seed
    assert first.spec.method is second.spec.method
    assert first.environment["packages"] is second.environment["packages"]


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["metrics"].update(accuracy="high"),
        lambda values: values["spec"].update(seed=-1),
        lambda values: values["spec"].update(seed="0"),
        lambda values: values["spec"]["recipe"]["budget"].update(epochs=0),
        lambda values: values.update(schema_version=99),
        lambda values: values.update(fingerprint="other"),
        lambda values: values.update(environment=None),
        lambda values: values.pop("status"),
    ],
)
def test_damage_is_named_as_by_the_store(
    paths: list[Path], change: Callable[[dict[str, Any]], object]
) -> None:
    reader = RecordReader()
    for path in paths:
        reader.read(path)
    values = json.loads(paths[0].read_text(encoding="utf-8"))
    change(values)
    paths[0].write_text(json.dumps(values), encoding="utf-8")
    try:
        expected: Any = Store(paths[0].parent).read(paths[0])
    except StoreError as error:
        with pytest.raises(type(error)) as caught:
            reader.read(paths[0])
        assert str(caught.value) == str(error)
    else:
        assert reader.read(paths[0]) == expected


@pytest.mark.parametrize(
    "message", ["see hf_abcdefghijklmnopqrst", "in {home}/data", "Größe {home}"]
)
def test_private_texts_of_others_are_removed(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "jürgen"
    (path,) = written(tmp_path / "results", make_record(message=message.format(home=home)))
    monkeypatch.setenv("HOME", str(home))
    found = RecordReader().read(path)
    assert found == Store(path.parent).read(path)
    assert str(home) not in found.message
    assert "hf_" not in found.message


def test_failed_attempt_is_left_out_only_if_the_same_run_succeeded(tmp_path: Path) -> None:
    good, bad = make_record("lora", 0), missing("lora", "crashed", "why")
    alone = replace(missing("lora", "crashed", "why", seed=1), fingerprint="alone")
    other = make_record("lora", 1, spec=replace(alone.spec, device="cuda"), fingerprint="other")
    written(tmp_path, good, alone, other)
    written(tmp_path, replace(bad, fingerprint="lora0-crashed"))
    names = {record.fingerprint for record in RecordReader().records(tmp_path)[0]}
    assert names == {"lora0", "alone", "other"}
