"""The store loses nothing.

Every file in it is read, left to its owner, or set aside with a message. Any number of sessions may
write.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import another_user, make_record
from peft_methods.__main__ import main
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.record import SCHEMA_VERSION, Record, record_without_result
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store
from peft_methods.tasks.class_predictions import ClassPredictions


def predictions(value: float = 2.0) -> ClassPredictions:
    return ClassPredictions(np.asarray([[0.1, value]], dtype=np.float32), np.asarray([1]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.prepare()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spoil(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda whole: whole[: len(whole) // 2], "is not a valid record"),
        (lambda whole: "", "is not a valid record"),
        (lambda whole: "\x00", "is not a valid record"),
        (lambda whole: "[" * 100_000, "is not a valid record"),
        (lambda whole: whole, "holds the record of another run: lora0"),
        (lambda whole: spoil(whole, schema_version="two"), "is not a valid record"),
        (
            lambda whole: spoil(whole, spec={"recipe": {"name": "x"}}),
            "its specification is incomplete",
        ),
        (
            lambda whole: spoil(whole, spec={**json.loads(whole)["spec"], "seed": "one"}),
            "is not a valid record",
        ),
    ],
)
def test_store_sets_aside_damaged_records_and_reads_the_others(
    store: Store, content: Any, problem: str
) -> None:
    sound = store.write(make_record())
    bad = store.folder / "0123.json"
    bad.write_text(content(sound.read_text(encoding="utf-8")), encoding="utf-8")
    was = bad.read_bytes()
    good, unfit = store.records()
    assert [record.fingerprint for record in good] == ["lora0"]
    (line,) = store.set_aside(unfit)
    (aside,) = (store.folder / "set_aside").iterdir()
    assert problem in line
    assert str(bad) in line
    assert line.endswith(f"It was set aside as {aside}.")
    assert aside.read_bytes() == was
    assert store.records() == (good, [])


def test_store_keeps_two_set_aside_files_with_the_same_name(store: Store) -> None:
    for text in ("{", "[1"):
        (store.folder / "x.json").write_text(text, encoding="utf-8")
        store.set_aside(store.records()[1])
    assert {
        path.read_text(encoding="utf-8") for path in (store.folder / "set_aside").iterdir()
    } == {"{", "[1"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema_version": SCHEMA_VERSION + 1, "news": 3}, "newer than"),
        (
            {"spec": {**make_record().spec.to_json(), "method": {"name": "loar"}}},
            "unknown method 'loar'. Did you mean 'lora'?",
        ),
    ],
)
def test_store_leaves_records_of_other_versions_in_place(
    store: Store, changes: Any, problem: str
) -> None:
    path = store.write(make_record())
    path.write_text(spoil(path.read_text(encoding="utf-8"), **changes), encoding="utf-8")
    (line,) = store.set_aside(store.records()[1])
    assert problem in line
    assert line.endswith("It was left where it is.")
    assert path.is_file()


def test_store_leaves_files_of_other_programs_in_place(store: Store) -> None:
    baseline = store.folder / "base.json"
    baseline.write_text('{"benchmarks": []}', encoding="utf-8")
    assert store.set_aside(store.records()[1]) == [
        f"{baseline} is not a valid record: it has no fingerprint. It was left where it is."
    ]
    assert baseline.is_file()


def test_store_leaves_a_record_of_another_user_in_place() -> None:
    """A record that may not be read may be valid."""
    with another_user() as folder:
        path = folder / "lora0.json"
        path.touch(mode=0)
        store = Store(folder)
        good, unfit = store.records()
        assert good == []
        assert store.set_aside(unfit) == [
            f"{path} cannot be read: Permission denied. It was left where it is."
        ]
        assert path.exists()


def test_store_does_not_set_aside_a_file_replaced_by_another_session(store: Store) -> None:
    path = store.folder / "lora0.json"
    path.write_text("{", encoding="utf-8")
    _, unfit = store.records()
    record = make_record()
    store.write(record)
    assert store.set_aside(unfit) == []
    assert store.read(path) == record
    path.unlink()
    assert store.set_aside(unfit) == []  # nor a file that is gone


def test_audit_reports_unreadable_files_and_moves_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.folder / "bad.json").write_text("{", encoding="utf-8")
    assert main(["audit", str(store.folder)]) == 2
    assert "holds no records (unreadable: " in capsys.readouterr().err
    store.write(make_record())
    assert main(["audit", str(store.folder)]) in {0, 1}
    assert "bad.json is not a valid record" in capsys.readouterr().err
    assert names(store.folder) == ["bad.json", "lora0.json"]


json_values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
)


@settings(max_examples=40)
@given(st.binary(max_size=60) | json_values)
def test_store_reads_on_after_any_file_content(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    (store.folder / "x.json").write_bytes(
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )
    assert len(store.records()[1]) == 1


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
def test_damage_describes_changed_and_missing_files(store: Store, tmp_path: Path, end: str) -> None:
    trained = tmp_path / "trained"
    trained.write_bytes(b"weights")
    made = make_record(metrics={"accuracy": 1.0})
    record = store.read(store.write(made, predictions(), trained))
    assert store.damage(record) == ""
    beside = store.folder / f"lora0{end}"
    beside.write_bytes(beside.read_bytes()[:-1])
    assert store.damage(record) == f"{beside} has changed since it was written"
    beside.unlink()
    assert store.damage(record) == f"{beside} cannot be read (No such file or directory)"


def test_store_does_not_write_the_reused_flag(store: Store) -> None:
    path = store.write(replace(make_record(), reused=True))
    assert "reused" not in json.loads(path.read_text(encoding="utf-8"))
    assert not store.read(path).reused


def failed(message: str, **changes: Any) -> Record:
    recipe = load_recipe("embedded")
    return record_without_result(
        run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0],
        "failed",
        message,
        **changes,
    )


def test_store_deletes_a_failed_record_when_the_run_ends_again(store: Store) -> None:
    store.write(failed("first"))
    store.write(make_record("ia3", fingerprint="another-cell"))
    store.write(failed("second"))
    assert {record.message for record in store.records()[0]} == {"second", ""}
    store.write(make_record())
    assert names(store.folder) == ["another-cell.json", "lora0.json"]


def test_records_leave_out_a_failed_attempt_of_a_successful_run(store: Store) -> None:
    store.write(make_record())
    store.write(failed("again, with other code"))
    assert [record.status for record in store.records()[0]] == ["ok"]


def test_failed_attempts_get_unique_names() -> None:
    assert failed("why").fingerprint != failed("why").fingerprint


def test_concurrent_writers_leave_one_consistent_record(store: Store) -> None:
    """Predictions and record must come from the same session."""

    def write(number: int) -> None:
        record = make_record(message=str(number), metrics={"accuracy": float(number > 0)})
        store.write(record, predictions(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(16)))
    (record,), unfit = store.records()
    assert (unfit, store.damage(record)) == ([], "")
    found = store.read_predictions(record)
    assert found is not None
    assert found.logits[0, 1] == float(record.message)
    assert names(store.folder) == ["lora0.json", "lora0.npz"]


OWNER = """
import sys, time
from pathlib import Path
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.store import Store
print(RunFolder(Store(Path(sys.argv[1]))).path.name, flush=True)
time.sleep(300)
"""


def test_store_removes_files_of_killed_sessions_but_not_of_live_ones(store: Store) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(store.folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    theirs = store.folder / owner.stdout.readline().strip()
    (store.folder / ".half.json.x1").write_text("{", encoding="utf-8")
    ours = RunFolder(store)
    assert theirs.is_dir()
    # The other session uses the store's own log folder.
    assert ours.logs == store.folder / "logs" / ours.path.name
    ours.logs.mkdir(parents=True)
    ours.remove()
    owner.kill()
    owner.communicate()
    store.prepare()
    alone = RunFolder(store)
    assert alone.logs == store.folder / "logs"
    assert names(store.folder) == ["logs", alone.path.name]
    assert names(alone.logs) == []
    alone.remove()
    alone.remove()  # calling it twice is fine
    assert names(store.folder) == ["logs"]
