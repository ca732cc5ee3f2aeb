"""A store loses nothing: whatever lies in it is read, left to whom it belongs, or set aside by name; any number of runs may write."""

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
from test_records_and_validity import make_record

from peft_methods.__main__ import main
from peft_methods.cells import cells_of, chosen_methods
from peft_methods.execution.scratch import RunFolder
from peft_methods.quality import Predictions
from peft_methods.recipe import load_recipe
from peft_methods.records import SCHEMA_VERSION, Record, without_result
from peft_methods.store import Store


def predictions(value: float = 2.0) -> Predictions:
    return Predictions(np.asarray([[0.1, value]], dtype=np.float32), np.asarray([1]))


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
    ("content", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "is no record"),
        (lambda whole: "", "is no record"),
        (lambda whole: "\x00", "is no record"),
        (lambda whole: "[" * 100_000, "is no record"),
        (
            lambda whole: whole,
            "is the record of another cell: it holds lora0",
        ),  # under another's name
        (lambda whole: spoil(whole, schema_version="two"), "is no record"),
        (lambda whole: spoil(whole, cell={"recipe": {"name": "x"}}), "its cell is not whole"),
        (
            lambda whole: spoil(whole, cell={**json.loads(whole)["cell"], "seed": "one"}),
            "is no record",
        ),
    ],
)
def test_what_is_no_record_is_set_aside_by_name_and_the_others_are_read(
    store: Store, content: Any, said: str
) -> None:
    sound = store.write(make_record())
    bad = store.folder / "0123.json"
    bad.write_text(content(sound.read_text(encoding="utf-8")), encoding="utf-8")
    was = bad.read_bytes()
    good, unfit = store.records()
    assert [record.identity for record in good] == ["lora0"]
    (line,) = store.set_aside(unfit)
    (aside,) = (store.folder / "set_aside").iterdir()
    assert said in line
    assert str(bad) in line
    assert line.endswith(f"It was set aside as {aside}.")
    assert aside.read_bytes() == was
    assert store.records() == (good, [])


def test_two_of_one_name_are_both_kept_aside(store: Store) -> None:
    for text in ("{", "[1"):
        (store.folder / "x.json").write_text(text, encoding="utf-8")
        store.set_aside(store.records()[1])
    assert {
        path.read_text(encoding="utf-8") for path in (store.folder / "set_aside").iterdir()
    } == {"{", "[1"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": SCHEMA_VERSION + 1, "news": 3}, "newer than"),
        (
            {"cell": {**make_record().cell, "method": {"name": "loar"}}},
            "unknown method 'loar'. Did you mean 'lora'?",
        ),
    ],
)
def test_another_versions_record_is_named_and_left_to_it(
    store: Store, changes: Any, said: str
) -> None:
    path = store.write(make_record())
    path.write_text(spoil(path.read_text(encoding="utf-8"), **changes), encoding="utf-8")
    (line,) = store.set_aside(store.records()[1])
    assert said in line
    assert line.endswith("It was left where it is.")
    assert path.is_file()


def test_another_programs_file_is_named_and_left_where_it_is(store: Store) -> None:
    baseline = store.folder / "base.json"
    baseline.write_text('{"benchmarks": []}', encoding="utf-8")
    assert store.set_aside(store.records()[1]) == [
        f"{baseline} is no record: it holds something else. It was left where it is."
    ]
    assert baseline.is_file()


def test_what_another_run_wrote_anew_in_the_meantime_is_not_set_aside(store: Store) -> None:
    path = store.folder / "lora0.json"
    path.write_text("{", encoding="utf-8")
    _, unfit = store.records()
    record = make_record()
    store.write(record)
    assert store.set_aside(unfit) == []
    assert store.read(path) == record
    path.unlink()
    assert store.set_aside(unfit) == []  # and what is gone is nobody's loss


def test_an_audit_names_what_it_cannot_read_and_moves_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.folder / "bad.json").write_text("{", encoding="utf-8")
    assert main(["audit", str(store.folder)]) == 2
    assert "holds no records (unreadable: " in capsys.readouterr().err
    store.write(make_record())
    assert main(["audit", str(store.folder)]) in {0, 1}
    assert "bad.json is no record" in capsys.readouterr().err
    assert names(store.folder) == ["bad.json", "lora0.json"]


json_values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
)


@settings(max_examples=40)
@given(st.binary(max_size=60) | json_values)
def test_no_file_whatever_is_in_it_stops_the_reading(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    (store.folder / "x.json").write_bytes(
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )
    assert len(store.records()[1]) == 1


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
def test_damage_beside_a_record_is_told(store: Store, tmp_path: Path, end: str) -> None:
    trained = tmp_path / "trained"
    trained.write_bytes(b"weights")
    record = store.read(store.write(make_record(), predictions(), trained))
    assert store.damage(record) == ""
    beside = store.folder / f"lora0{end}"
    beside.write_bytes(beside.read_bytes()[:-1])
    assert store.damage(record) == f"{beside} is not as it was written"
    beside.unlink()
    assert store.damage(record) == f"{beside} cannot be read (No such file or directory)"


def test_that_a_record_was_reused_is_not_written(store: Store) -> None:
    path = store.write(replace(make_record(), reused=True))
    assert "reused" not in json.loads(path.read_text(encoding="utf-8"))
    assert not store.read(path).reused


def failed(message: str, **changes: Any) -> Record:
    recipe = load_recipe("embedded")
    return without_result(
        cells_of(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0],
        "failed",
        message,
        **changes,
    )


def test_a_failed_attempt_goes_when_the_cell_ends_otherwise(store: Store) -> None:
    store.write(failed("first"))
    store.write(make_record("ia3", identity="another-cell"))
    store.write(failed("second"))
    assert {record.message for record in store.records()[0]} == {"second", ""}
    store.write(make_record())
    assert names(store.folder) == ["another-cell.json", "lora0.json"]


def test_a_failed_attempt_beside_a_success_does_not_count(store: Store) -> None:
    store.write(make_record())
    store.write(failed("again, with other code"))
    assert [record.status for record in store.records()[0]] == ["ok"]


def test_attempts_of_two_runs_have_names_of_their_own() -> None:
    assert failed("why").identity != failed("why").identity


def test_writers_at_once_leave_one_whole_record(store: Store) -> None:
    """Predictions and record are one run's: a pair of two runs would not fit together."""

    def write(number: int) -> None:
        store.write(make_record(message=str(number)), predictions(number))

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
from peft_methods.execution.scratch import RunFolder
from peft_methods.store import Store
print(RunFolder(Store(Path(sys.argv[1]))).path.name, flush=True)
time.sleep(300)
"""


def test_a_killed_runs_leavings_are_removed_and_a_live_runs_are_not(store: Store) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(store.folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    theirs = store.folder / owner.stdout.readline().strip()
    (store.folder / ".half.json.x1").write_text("{", encoding="utf-8")
    ours = RunFolder(store)
    assert theirs.is_dir()
    assert ours.logs == store.folder / "logs" / ours.path.name  # the store's own logs are theirs
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
    alone.remove()  # twice does no harm
    assert names(store.folder) == ["logs"]
