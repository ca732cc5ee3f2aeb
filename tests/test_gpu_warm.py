"""Runs in warm processes on a real GPU: bits and peaks are those of fresh processes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.isolation.comparison import differences
from peft_methods.runs.isolation.marks import isolation_of, was_warm
from peft_methods.runs.record import Record
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.store import PREDICTIONS, Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.embedded,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(1200),
]
SMALL = (
    "data.train=64",
    "data.validation=32",
    "data.test=64",
    "budget.epochs=2",
    "budget.precision=bf16",
    "budget.seeds=2",
    "expect.margin_over_majority=0.0",
)
SEGMENT = 2 * 2**20  # the allocator reserves memory for small tensors in steps of this size
REPEATED = ("full", "lora", "qlora")  # with two seeds each: the second finds compiled code
GROUPS = {"main": REPEATED, "others": ("head_only", "bitfit", "ia3", "adapter")}


def runs_of(names: Sequence[str], engine: str) -> list[RunSpec]:
    """Return a run of each method, and a second one of some."""
    recipe = load_recipe("embedded", SMALL)
    found = []
    for name in names:
        (method,) = chosen_methods(recipe, [name])
        runs = run_specs(recipe, method, "cuda", engine, deterministic=True)
        found += runs if name in REPEATED else runs[:1]
    return found


def trained(runs: Sequence[RunSpec], folder: Path, isolation: str) -> list[Record]:
    """Train runs one after the other on one GPU; return their records in that order."""
    store = Store(folder)
    store.prepare()
    scheduler = new_scheduler(store, "cuda", workers=1, retries=0, isolation=isolation)
    try:
        scheduler.submit(runs)
        records = scheduler.wait(runs)
    finally:
        scheduler.close()
    assert {(one.status, one.message) for one in records} == {("ok", "")}
    return records


@pytest.mark.parametrize("engine", ["cuda_graphs", "trainer"])
@pytest.mark.parametrize("group", GROUPS)
def test_runs_in_any_order_have_the_bits_and_peaks_of_a_fresh_process(
    group: str, engine: str, tmp_path: Path
) -> None:
    runs = runs_of(GROUPS[group], engine)
    expected = {one.key: one for one in trained(runs, tmp_path / "fresh", "fresh")}
    order = random.Random(0).sample(runs, len(runs))
    records = trained(order, tmp_path / "warm", "warm")
    for one in records:
        print(
            one.spec.label,
            isolation_of(one),
            [record.metrics["train_reserved_bytes"] for record in (one, expected[one.key])],
        )
    left = {one.spec.label: isolation_of(one)["left_behind"] for one in records}
    found = {
        one.spec.label: differences(
            one,
            expected[one.key],
            tmp_path / "warm" / f"{one.fingerprint}{PREDICTIONS}",
            tmp_path / "fresh" / f"{one.fingerprint}{PREDICTIONS}",
        )
        for one in records
    }
    assert not any(left.values()), left
    assert not any(found.values()), found
    assert sum(map(was_warm, records)) >= len(records) // 2
    for one in records:
        reserved = expected[one.key].metrics["train_reserved_bytes"]
        assert abs(one.metrics["train_reserved_bytes"] - reserved) <= SEGMENT


def test_next_seed_compiles_nothing_and_is_ready_sooner(tmp_path: Path) -> None:
    recipe = load_recipe("embedded", [*SMALL, "budget.seeds=3"])
    runs = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cuda", "cuda_graphs")
    first, *others = trained(runs, tmp_path, "warm")
    assert not was_warm(first)
    for record in others:
        assert was_warm(record)
        assert record.environment["compiled_graphs"] == {"cached": 0, "compiled": 0}
        assert record.metrics["capture_seconds"] < first.metrics["capture_seconds"]  # type: ignore[operator]
        assert record.environment["memory_before_bytes"] == 0


def test_peak_is_the_same_for_a_run_that_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that tries kernels needs memory, in the first step alone."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    recipe = load_recipe("embedded_decoder", [*SMALL, "budget.seeds=1"])
    runs = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cuda", "cuda_graphs")
    found = [trained(runs, tmp_path / name, "fresh")[0] for name in ("first", "second")]
    assert [one.environment["compiled_graphs"]["compiled"] > 0 for one in found] == [True, False]
    peaks = [one.metrics["peak_memory_bytes"] for one in found]
    assert peaks[0] == peaks[1]
    assert [one.metrics["unattributed_bytes"] for one in found] == [0, 0]
