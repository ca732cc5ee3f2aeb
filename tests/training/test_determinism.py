"""Repeated runs give identical results; nondeterministic operations are named in an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import reproducible_results, run_here, small_runs
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.plan import run_groups
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.store import Store
from peft_methods.training.determinism import set_deterministic
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import Nondeterministic

# The description in the folder of a saved model names the setting if it is on.
SETTING_BYTES = len(',\n  "deterministic": true')


@pytest.fixture
def restored_torch() -> Iterator[None]:
    yield
    set_deterministic(on=False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.slow
def test_every_method_is_bit_identical_in_parallel_processes(
    tiny_recipe: Path, tmp_path: Path, restored_torch: None
) -> None:
    """Compare runs one at a time in this process with runs in two parallel processes.

    Only the parallel runs use deterministic algorithms.
    """
    names = list(load_recipe(str(tiny_recipe)).methods)
    alone = {name: small_runs(tiny_recipe, name)[0] for name in names}
    parallel = [small_runs(tiny_recipe, name, deterministic=True)[0] for name in names]
    store = Store(tmp_path / "results")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=2)
    try:
        scheduler.submit(parallel)
        records = scheduler.wait(parallel)
    finally:
        scheduler.close()
    for name, record in zip(names, records, strict=True):
        assert record.spec.deterministic
        expected = reproducible_results(*run_here(alone[name], tmp_path / "here"))
        expected["metrics"]["saved_model_bytes"] += SETTING_BYTES
        assert reproducible_results(record, store.read_predictions(record)) == expected, name


def test_deterministic_setting_changes_the_key_of_a_run_and_its_prerequisites(
    tiny_recipe: Path,
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    plain, deterministic = (
        run_groups([recipe], ["adapter_fusion"], "cpu", deterministic=on)[0].runs[0]
        for on in (False, True)
    )
    assert plain.key != deterministic.key
    assert "deterministic" not in plain.to_json()
    assert all(one.deterministic for one in deterministic.prerequisites)
    # Its prerequisites are still deterministic.
    assert replace(deterministic, deterministic=False).key != plain.key


@pytest.mark.slow
def test_nondeterministic_operation_is_named_in_the_error(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_torch: None
) -> None:
    original = loop.RunTrainer.compute_loss

    def nondeterministic(*arguments: Any, **options: Any) -> torch.Tensor:
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
        return original(*arguments, **options)

    monkeypatch.setattr(loop.RunTrainer, "compute_loss", nondeterministic)
    run_here(small_runs(tiny_recipe, "head_only")[0], tmp_path)
    with pytest.raises(
        Nondeterministic,
        match=r"^put_ has no deterministic implementation here: set deterministic = false",
    ) as caught:
        run_here(small_runs(tiny_recipe, "head_only", deterministic=True)[0], tmp_path)
    assert caught.value.setting == "deterministic"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
