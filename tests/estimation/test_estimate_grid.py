"""The grid that compares estimates with measurements: its cases, its instruments, its results."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import estimate_cases
import numpy as np
import pytest
from estimate_capped import CappedRun, capped, capped_cases, edge_runs
from estimate_cases import Case
from estimate_comparison import (
    Compared,
    compared,
    print_comparison,
    print_verdicts,
    stored_results,
    verdicts,
    wrong,
)
from estimate_design import DECODERS, ENCODERS, compiled_cases, eager_cases
from estimate_files import Stored, case_of, predictions
from estimate_grid import SECONDS, measure_all
from estimate_measuring import Measuring, time_limit
from estimate_predictions import prediction

MIB = 2**20
TINY = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
CASE = Case("tiny", "lora", "fp32", checkpointing=True, rows=3, tokens=24)
PREDICTED = predictions().values
RESULTS = stored_results()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(estimate_cases, "CONFIGS", {"tiny": TINY})
    return CASE


def memory_of(low: float, expected: float, high: float, context: int = 800 * MIB) -> dict[str, Any]:
    reserved = {"low": low, "expected": expected, "high": high}
    return {
        "reserved": reserved,
        "device": {name: size + context for name, size in reserved.items()},
        "allocated": reserved,
        "phases": {"train": expected},
        "parts": {"weights": expected},
    }


def test_cases_are_of_many_methods_and_architectures() -> None:
    cases = [case_of(value) for value in PREDICTED.values()]
    assert len(cases) >= 160
    methods, architectures = (
        Counter(getattr(case, name) for case in cases) for name in ("method", "architecture")
    )
    assert len(methods) >= 40
    assert set(architectures) == {*ENCODERS, *DECODERS}
    assert min(architectures.values()) >= 5
    assert sum(count >= 2 for count in methods.values()) >= 40
    assert sum(case.engine == "cuda_graphs" for case in cases) >= 12
    assert all(case.key == key for case, key in zip(cases, PREDICTED, strict=True))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_settings_occur_together_also_in_a_grid_that_was_cut(share: float) -> None:
    cases = [case_of(value) for value in PREDICTED.values()]
    cases = [case for case in cases if case.engine == "trainer"]
    cut = cases[: int(share * len(cases))]
    found = Counter((case.precision, case.checkpointing) for case in cut)
    every = list(product(("bf16", "fp32", "nf4", "int8"), (True, False)))
    assert all(found[pair] >= 3 for pair in every), found
    architectures = Counter(case.architecture for case in cut)
    assert max(architectures.values()) <= 2 * min(architectures.values()) + 2


@pytest.mark.slow
def test_stored_cases_are_those_of_the_design() -> None:
    drawn = [*eager_cases(), *compiled_cases()]
    assert [case.key for case in drawn] == list(PREDICTED)


def test_a_case_is_measured_by_the_code_of_a_run(tiny: Case) -> None:
    measuring = Measuring("cpu")
    found = measuring.measure(tiny)
    assert found["status"] == "ok", found.get("message")
    assert len(found["step_seconds"]) == 5
    assert found["memory"]["peak_memory_bytes"] > 0
    assert list(found["phase_seconds"]) == [
        *("data", "load", "tokenize", "warm_up", "train", "evaluate")
    ]
    assert found["left"] == []
    assert not found["device_failed"]


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_methods_are_trained_over_quantised_weights(tiny: Case, precision: str) -> None:
    case = replace(tiny, method="rslora", precision=precision)
    found = Measuring("cpu").measure(case)
    assert found["status"] == "ok", found.get("message")
    estimated = prediction(case)
    assert estimated["total"] > estimated["trainable"] > 0
    plain = prediction(replace(case, precision="bf16"))
    weights = [one["memory"]["parts"]["weights"] for one in (estimated, plain)]
    assert weights[0] < weights[1]


def test_a_failing_case_says_why(tiny: Case) -> None:
    found = Measuring("cpu").measure(replace(tiny, method="no_such_method"))
    assert found["status"] == "failed"
    assert "no_such_method" in found["message"]
    assert "no_such_method" in prediction(replace(tiny, method="no_such_method"))["refused"]


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError, match="more than 0 s"), time_limit(0.05):
        time.sleep(5)


def test_values_are_stored_at_once_and_read_back(tmp_path: Path) -> None:
    first = Stored(tmp_path / "a" / "grid.json", device="one")
    first.put("x", {"case": CASE.to_json(), "status": "ok"})
    other = Stored(tmp_path / "b" / "grid.json", tmp_path / "a" / "grid.json", device="two")
    assert case_of(other.values["x"]) == CASE
    other.put("y", {"status": "ok"})
    again = Stored(tmp_path / "b" / "grid.json")
    assert set(again.values) == {"x", "y"}
    assert again.facts["device"] == "two"


def done(device_failed: str = "") -> dict[str, Any]:
    return {"status": "ok", "seconds": 1.0, "left": [], "device_failed": device_failed}


def test_a_grid_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [replace(CASE, rows=rows) for rows in range(1, 5)]
    stored, measured = Stored(tmp_path / "grid.json"), list[int]()

    def measure(case: Case) -> dict[str, Any]:
        measured.append(case.rows)
        return done("broken" if case.rows == 2 and measured.count(2) == 1 else "")

    with pytest.raises(RuntimeError, match="goes on with the next case"):
        measure_all(cases, measure, stored, 60.0)
    measure_all(cases, measure, Stored(tmp_path / "grid.json"), 60.0)
    assert measured == [1, 2, 3, 4]
    monkeypatch.setenv(SECONDS, "-1")
    measure_all([replace(CASE, rows=9)], measure, stored, 60.0)
    assert measured == [1, 2, 3, 4]


@pytest.mark.parametrize("needed", [900, 1000, 1050])
def test_limits_come_near_the_edge(needed: int) -> None:
    tried = []

    def bench(limit: int | None) -> CappedRun:
        tried.append(limit)
        fitted = limit is None or limit >= needed * MIB
        return CappedRun(limit, fitted, 0, needed * MIB, (needed + 800) * MIB)

    memory = memory_of(950 * MIB, 1000 * MIB, 1030 * MIB)
    runs = edge_runs(bench, memory)
    limits = [one.limit for one in runs if one.limit is not None]
    fitted = {one.limit for one in runs if one.fitted}
    assert limits[:3] == [int(949.05 * MIB), 1000 * MIB, int(1031.03 * MIB)]
    if needed == 1000:
        assert len(runs) == 7
        nearest = max(limit for limit in limits if limit not in fitted)
        assert 0 < needed * MIB - nearest < 10 * MIB
    measured = {CASE.key: {"case": CASE.to_json(), "runs": [vars(one) for one in runs]}}
    found = verdicts({CASE.key: {"memory": memory}}, measured)
    assert {one.said for one in found} == {"yes", "no", "unsure"} or needed != 1000
    assert len(wrong(found)) == {900: 1, 1000: 0, 1050: 1}[needed]


def test_a_case_is_trained_with_limits(tiny: Case) -> None:
    allowed = list[int | None]()
    memory = memory_of(900 * MIB, 1000 * MIB, 1100 * MIB)
    found = capped(Measuring("cpu"), tiny, {"memory": memory}, allowed.append)
    assert found["status"] == "ok", found.get("message")
    assert [one["fitted"] for one in found["runs"]] == [True] * 4
    assert allowed[1::2] == [None] * 4
    assert found["left"] == []


def test_limits_are_tried_for_every_architecture() -> None:
    cases = capped_cases(PREDICTED)
    assert len({case.architecture for case in cases}) == len(cases) >= 15


def test_errors_are_those_of_the_measured_value(capsys: pytest.CaptureFixture[str]) -> None:
    memory = memory_of(950.0, 1000.0, 1030.0, context=500)
    step = {"low": 0.5, "expected": 1.1, "high": 2.0}
    measured = {
        "case": CASE.to_json(),
        "status": "ok",
        "memory": {
            "peak_memory_bytes": 1050,
            "train_reserved_bytes": 1000,
            "evaluate_reserved_bytes": 1031,
            "train_device_bytes": 1500,
            "weights_bytes": 900,
        },
        "memory_before_bytes": 50,
        "step_seconds": [1.0, 9.0, 1.0],
    }
    stated = {CASE.key: {"memory": memory, "step_seconds": step}}
    (row,) = compared(stated, {CASE.key: measured})
    assert row.error == 0
    assert row.is_held
    assert row.holds("reserved") is False
    assert row.holds("device") is True
    assert row.time_error == pytest.approx(0.1)
    assert row.time_is_held
    assert row.parts() == {"weights": (1000.0, 900)}
    print_comparison([row])
    printed = capsys.readouterr().out
    assert "reserved 0% of 1" in printed
    assert "driver's 100% of 1" in printed
    assert compared(stated, {CASE.key: {**measured, "status": "oom"}}) == []


def rows_of(folder: Path) -> list[Compared]:
    return compared(PREDICTED, Stored(folder / "grid.json").values)


def missed(reason: str) -> pytest.MarkDecorator:
    """Mark a goal that is missed (docs/explanation/estimates.md): the test says when it is met."""
    return pytest.mark.xfail(strict=True, reason=reason)


over_results = pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)


@over_results
def test_half_of_the_peaks_are_within_1_percent(folder: Path) -> None:
    rows = rows_of(folder)
    assert len(rows) >= 150
    assert len({row.case.method for row in rows}) >= 40
    assert len({row.case.architecture for row in rows}) >= 10
    print_comparison(rows)
    assert np.median([abs(row.error) for row in rows]) <= 0.01


@over_results
def test_95_percent_of_the_peaks_are_within_5_percent(folder: Path) -> None:
    assert np.quantile([abs(row.error) for row in rows_of(folder)], 0.95) <= 0.05


@missed("decoders in fp32")
@over_results
def test_no_peak_is_2_percent_too_low(folder: Path) -> None:
    assert min(row.error for row in rows_of(folder)) >= -0.02


@missed("the memory that torch keeps for later depends on the loading of the weights too")
@over_results
@pytest.mark.parametrize("kind", ["reserved", "device"])
def test_ranges_hold_95_percent(folder: Path, kind: str) -> None:
    held = [row.holds(kind) for row in rows_of(folder)]
    known = [one for one in held if one is not None]
    assert len(known) >= 150
    assert np.mean(known) >= 0.95


@over_results
def test_no_run_is_said_to_fit_that_does_not(folder: Path) -> None:
    found = verdicts(PREDICTED, Stored(folder / "capped.json").values)
    print_verdicts(found)
    assert len(found) >= 60
    assert all(one.fitted for one in found if one.said == "yes")
    false_no = sum(one.said == "no" and one.fitted for one in found)
    assert false_no <= 0.05 * len(found)
