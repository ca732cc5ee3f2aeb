"""The key of a run: the hash of what its results depend on, whichever way it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from builders import make_record
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.spec_settings import decisive
from peft_methods.utils import sanitize
from peft_methods.utils.hashing import content_hash


def _with_source(run: RunSpec, source: str) -> RunSpec:
    recipe = replace(run.recipe, model=replace(run.recipe.model, source=source))
    return replace(run, recipe=recipe)


def _over_two_gpus(run: RunSpec) -> RunSpec:
    return replace(run, recipe=replace(run.recipe, budget=replace(run.recipe.budget, gpus=2)))


CHANGES: dict[str, Callable[[RunSpec], RunSpec]] = {
    "none": lambda run: run,
    "seed": lambda run: replace(run, seed=7),
    "trial": lambda run: replace(run, role="trial", trial="lr=1e-3"),
    "prerequisite": lambda run: replace(run, role="prerequisite"),
    "deterministic": lambda run: replace(run, deterministic=True),
    "fallback": lambda run: replace(run, engine="cuda_graphs").with_fallback_engine(),
    "gpus": _over_two_gpus,
    "home": lambda run: _with_source(run, "/home/somebody/models/ä"),
    "token": lambda run: _with_source(run, "https://me:hunter22@example.org/model"),
}


@pytest.mark.parametrize("method", ["lora", "adapter_fusion"])
@pytest.mark.parametrize("change", CHANGES)
def test_key_is_the_hash_of_what_was_requested(
    change: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    run = CHANGES[change](make_record(method).spec)
    asked = decisive(run.to_json()) | {"engine": run.requested_engine}
    asked.pop("fallback_from", None)
    assert run.key == content_hash(sanitize.private(asked))[:16]


def test_runs_that_share_a_recipe_have_settings_of_their_own() -> None:
    recipe = load_recipe("embedded")
    first, second = (replace(make_record(seed=seed).spec, recipe=recipe) for seed in (0, 1))
    settings = first.recipe_settings()
    settings["data"]["train"] = "changed"
    first.method_settings()["rank"] = "changed"
    assert second.recipe_settings()["data"]["train"] == recipe.data.train
    assert "changed" not in second.method_settings().values()
    assert first.key != second.key
