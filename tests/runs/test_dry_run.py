"""A dry run needs the config of a model, and no weights."""

from __future__ import annotations

import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builders import runs
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.dry_run import plan_text
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.prepare import prepare
from peft_methods.runs.spec import run_specs
from peft_methods.tasks.registry import with_task
from peft_methods.utils.errors import ModelError

SEVEN_BILLION = (
    *("gpu=false", "model.source=Qwen2.5-7B", "model.weights=random"),
    *("data.train=48", "data.validation=8", "data.test=8", "budget.seeds=1"),
)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_plan_of_a_large_model_takes_no_memory_for_its_weights() -> None:
    recipe = with_task(load_recipe("gsm8k_sft", SEVEN_BILLION))
    methods = tuple(chosen_methods(recipe, ["lora", "qlora", "ia3"]))
    before = peak_mib()
    made = prepare(recipe, methods, "cpu", threads=1, without_weights=True)
    assert peak_mib() - before < 500  # the weights in fp32 are 29,000 MiB
    assert not made.has_weights
    assert made.facts is not None
    assert made.facts.weights == {}
    assert not made.unsupported
    groups = [RunGroup(recipe, one, tuple(run_specs(recipe, one, "cpu"))) for one in methods]
    text = plan_text(groups, {recipe.name: made}, {}, 1)
    assert re.search(r"gsm8k_sft-lora +0 +0\.0002 +at least 1 × \d", text)
    assert re.search(r"3 runs, 1 at a time, at least .*FLOPs.*No weights were read\.", text)


def test_small_model_is_timed_and_has_the_same_facts_as_with_its_weights(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    made = prepare(run.recipe, (run.method,), "cpu", threads=1, without_weights=True)
    whole = prepare(run.recipe, (run.method,), "cpu", threads=1)
    assert made.is_timed
    assert made.facts is not None
    assert whole.facts is not None
    assert replace(made.facts, weights=whole.facts.weights) == whole.facts
    assert (made.data, made.unsupported) == (whole.data, whole.unsupported)


def test_no_weights_are_read(tiny_recipe: Path, tmp_path: Path) -> None:
    """The plan is made although the file of the weights ends after its header."""
    run, *_ = runs(tiny_recipe, "lora")
    folder = tmp_path / "model"
    shutil.copytree(run.recipe.model.source, folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
    recipe = replace(run.recipe, model=replace(run.recipe.model, source=str(folder)))
    made = prepare(recipe, (run.method,), "cpu", threads=1, without_weights=True)
    assert made.facts is not None
    assert made.facts.weights == {}
    with pytest.raises(ModelError, match="cannot be loaded"):
        prepare(recipe, (run.method,), "cpu", threads=1)
    weights.unlink()
    with pytest.raises(ModelError, match="no weights in"):
        prepare(recipe, (run.method,), "cpu", threads=1, without_weights=True)
