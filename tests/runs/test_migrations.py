"""Records of schema version 1 are read as current ones; other versions are refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from builders import make_record
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.migrations import migrate_baseline_entry
from peft_methods.runs.record import SCHEMA_VERSION, Record
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.store import Store

ENGINES = {"trainer": "stock", "cuda_graphs": "graphed"}
MODEL = {"source": "embedded:minilm", "weights": "pretrained", "revision": None}
DATA = {
    "source": "embedded:movie_reviews", "train": 400, "validation": 150, "test": 500,
    "max_length": 64, "select_by": "accuracy", "text": None, "text_pair": None, "label": None,
    "config": None, "revision": None, "test_split": "test", "validation_by": "rows",
    "leakage_limit": 0.01, "seed": 0, "token_lengths": None, "classes": None,
}  # fmt: skip
BUDGET = {
    "epochs": 2, "batch_size": 8, "precision": "fp32", "warmup_ratio": 0.06, "weight_decay": 0.01,
    "max_grad_norm": 1.0, "schedule": "linear", "gradient_accumulation": 1,
    "gradient_checkpointing": False, "padding": "dynamic", "early_stopping": 0,
    "evaluation_batch_size": 16,
}  # fmt: skip
RECIPE = {
    "name": "embedded",
    "model": {**MODEL, "trust_remote_code": False},
    "data": DATA,
    "budget": BUDGET,
    "gpu": False,
    "expect": {"margin_over_majority": 0.1},
}
OLD: dict[str, Any] = {  # as version 0.1 wrote it
    "cell": {
        "recipe": RECIPE,
        "method": {
            "name": "lora", "learning_rate": 2e-3, "head_learning_rate": None, "rank": 8,
            "alpha": 16.0, "dropout": 0.1, "targets": ["query", "value"],
        },
        "seed": 0,
        "device": "cpu",
        "engine": "stock",
        "stages": [],
    },
    "status": "ok",
    "identity": "4c7f9e6f06dd9e1ddce514b8710d8d07",
    "message": "",
    "is_source": False,
    "metrics": {"accuracy": 0.8, "train_seconds": 7.9, "source_seconds": None},
    "epochs": [{"epoch": 1, "train_loss": 0.6, "selection": 0.84}],
    "best_epoch": 1,
    "quality": None,
    "evidence": {
        "expected_trainable": 73728, "frozen_changed": [], "unmoved": [], "frozen_checked": 101,
        "moved_checked": 28, "head_parameters": 148610, "quantized": 0, "head_quantized": 0,
    },
    "data": {"source": "embedded:movie_reviews", "fingerprint": "f", "majority": 0.5},
    "environment": {"device": "cpu", "packages": {"torch": "2.13.0+cpu"}},
    "tuning": None,
    "attempts": [],
    "stack": "",
    "finished": 1795892735.2,
    "files": {},
    "schema_version": 1,
}  # fmt: skip


def old_record(**changes: Any) -> dict[str, Any]:
    """Return a record of version 1 with changes in its cell, or with a `role` of then."""
    role = {name: changes.pop(name) for name in ("is_source",) if name in changes}
    values = copy.deepcopy(OLD) | role
    values["cell"] |= changes
    return values


def read(values: dict[str, Any], folder: Path) -> Record:
    path = folder / f"{values.get('identity') or values['fingerprint']}.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return Store(folder).read(path)


def as_written_by_version_1(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a spec in its old shape."""
    text = json.dumps(spec).replace('"bundled:', '"embedded:')
    cell: dict[str, Any] = json.loads(text)
    cell["stages"] = [as_written_by_version_1(one) for one in cell.pop("prerequisites")]
    cell["engine"] = ENGINES[cell["engine"]]
    if "fallback_from" in cell:
        cell["instead_of"] = ENGINES[cell.pop("fallback_from")]
    if cell.pop("role") == "trial":
        cell["trial"] = True
    return cell


def current(method: str, engine: str = "trainer") -> RunSpec:
    recipe = load_recipe("embedded")
    return run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu", engine)[0]


def test_record_of_version_1_is_read_as_a_typed_object(tmp_path: Path) -> None:
    record = read(OLD, tmp_path)
    assert (record.fingerprint, record.role, record.schema_version) == (
        OLD["identity"], "main", SCHEMA_VERSION,
    )  # fmt: skip
    spec = record.spec
    assert (spec.engine, spec.fallback_from, spec.prerequisites) == ("trainer", "", ())
    assert spec.recipe.model.source == "bundled:minilm"
    assert spec.recipe.data.source == record.data["source"] == "bundled:movie_reviews"
    assert spec.recipe.budget.batch_size == 8
    assert spec.recipe.methods == {"lora": spec.method_settings()}
    assert spec.method == type(spec.method)(
        learning_rate=2e-3, rank=8, alpha=16.0, dropout=0.1, targets=("query", "value")
    )
    assert record.evidence.moved_checked == 28
    assert record.metrics == OLD["metrics"]


@pytest.mark.parametrize("method", ["lora", "qlora", "adapter_fusion"])
@pytest.mark.parametrize("engine", ["trainer", "cuda_graphs"])
def test_keys_of_migrated_specs_equal_those_of_today(
    tmp_path: Path, method: str, engine: str
) -> None:
    run = current(method, engine)
    record = read(old_record(**as_written_by_version_1(run.to_json())), tmp_path)
    assert record.key == run.key
    assert record.spec == run.recorded()
    assert [one.role for one in record.spec.prerequisites] == ["prerequisite"] * len(
        run.prerequisites
    )


def test_flags_of_version_1_become_roles(tmp_path: Path) -> None:
    source = as_written_by_version_1(current("adapter_fusion").prerequisites[0].to_json())
    assert read(old_record(**source, is_source=True), tmp_path).role == "prerequisite"
    trial = read(old_record(trial=True, is_source=True), tmp_path)
    assert (trial.role, trial.spec.trial, trial.spec.label) == (
        "trial", "", "embedded-lora-trial",
    )  # fmt: skip
    assert trial.key != read(OLD, tmp_path).key


def test_fallback_of_version_1_keeps_the_key_of_the_requested_engine(tmp_path: Path) -> None:
    fell_back = read(old_record(instead_of="graphed"), tmp_path)
    assert (fell_back.spec.engine, fell_back.spec.fallback_from) == ("trainer", "cuda_graphs")
    assert fell_back.key == read(old_record(engine="graphed"), tmp_path).key


def test_migrated_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = read(OLD, tmp_path)
    values = json.loads(json.dumps(record.to_json()))
    assert values["schema_version"] == SCHEMA_VERSION
    assert not {"cell", "identity", "is_source"} & values.keys()
    assert read(values, tmp_path) == record
    assert "embedded:" not in json.dumps(values)


def test_old_file_stays_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    read(OLD, tmp_path)
    (path,) = tmp_path.glob("*.json")
    before = path.read_bytes()
    store.prepare()
    store.write(make_record())
    good, unfit = store.records()
    assert (len(good), unfit, store.set_aside(unfit)) == (2, [], [])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            OLD | {"schema_version": SCHEMA_VERSION + 1},
            f"has schema version {SCHEMA_VERSION + 1}, newer than {SCHEMA_VERSION}",
        ),
        (
            old_record(method={"name": "loar", "learning_rate": 0.1}),
            "unknown method 'loar'. Did you mean 'lora'?",
        ),
        (old_record(method={**OLD["cell"]["method"], "depth": 3}), "unknown key 'depth'"),
        (
            old_record(recipe={**RECIPE, "budget": {**BUDGET, "padding": "wide"}}),
            "budget.padding = 'wide' should be",
        ),
    ],
)
def test_records_that_cannot_be_read_are_refused_by_name_and_left(
    tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    path = tmp_path / f"{OLD['identity']}.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    store = Store(tmp_path)
    good, unfit = store.records()
    assert good == []
    (line,) = store.set_aside(unfit)
    assert str(path) in line
    assert problem in line
    assert line.endswith("It was left where it is.")


@pytest.mark.parametrize("missing", ["recipe", "method", "seed", "engine", "stages"])
def test_incomplete_cell_is_refused(tmp_path: Path, missing: str) -> None:
    values = old_record()
    del values["cell"][missing]
    (tmp_path / f"{OLD['identity']}.json").write_text(json.dumps(values), encoding="utf-8")
    ((unfit),) = Store(tmp_path).records()[1]
    assert "its specification is incomplete" in unfit.reason


@pytest.mark.parametrize(
    ("method", "expected"), [("lora", 9.0), ("bitfit", 9.0), ("adapter_fusion", None)]
)
def test_checkpoints_of_version_2_without_frozen_weights_are_missing(
    tmp_path: Path, method: str, expected: float | None
) -> None:
    """They left out the adapters that a fusion mixes."""
    record = make_record(method, metrics={"accuracy": 0.8, "checkpoint_bytes": 9.0})
    old = json.loads(json.dumps(record.to_json())) | {"schema_version": 2}
    assert read(old, tmp_path).metrics == {"accuracy": 0.8, "checkpoint_bytes": expected}
    entry = {"schema_version": 2, "spec": old["spec"], "metrics": {"checkpoint_bytes": [9.0, 9.0]}}
    migrated = migrate_baseline_entry(entry)
    assert migrated["metrics"] == {"checkpoint_bytes": [expected, expected]}
    assert migrated["schema_version"] == SCHEMA_VERSION
