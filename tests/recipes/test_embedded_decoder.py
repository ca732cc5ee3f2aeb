"""The recipe `embedded_decoder`: a decoder that anyone can train without a hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from peft_methods.api import compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe

METHODS = ["full", "lora", "qlora", "ia3"]
PARAMETERS = {
    "full": 134_515_008,
    "lora": 30 * 8 * ((576 + 576) + (576 + 192)),  # queries and values; 3 of 9 heads have values
    "qlora": 30 * 8 * ((576 + 576) + (576 + 192)),
    "ia3": 30 * (192 + 192 + 1536),  # keys, values, inside the feed-forward block
}
SMALL = ["data.train=16", "data.validation=8", "data.test=16", "expect.above_majority=false"]


def test_recipe_needs_no_gpu_and_no_hub() -> None:
    recipe = load_recipe("embedded_decoder")
    assert not recipe.gpu
    assert recipe.model.source == "bundled:smollm2"
    assert recipe.data.source == "bundled:movie_reviews"
    assert [method.name for method in chosen_methods(recipe, METHODS)] == METHODS
    assert recipe.budget.seed_list() == (0,)


@pytest.mark.embedded
@pytest.mark.slow
def test_dry_run_of_the_recipe_prints_its_plan(pytester: Any) -> None:
    words = ["--recipe=embedded_decoder", "--method=lora,ia3", "--dry-run"]
    settings = (f"--set={one}" for one in SMALL)
    done = pytester.run(sys.executable, "-m", "peft_methods", "run", *words, *settings)
    assert done.ret == 0, done.stdout.str()
    done.stdout.fnmatch_lines(["embedded_decoder-lora  0 *", "*Nothing was trained."])


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compare_trains_the_recipe_reduced(tmp_path: Path) -> None:
    comparison = compare(
        "embedded_decoder", methods=METHODS, settings=SMALL, results=tmp_path, progress=False
    )
    for record in comparison.records:
        assert record.status == "ok", record.message
        assert record.spec.engine == "trainer"
        assert record.metrics["method_parameters"] == PARAMETERS[record.method_name]
        assert record.metrics["head_parameters"] == 2 * 576
        assert not record.evidence.frozen_changed
        assert 0 <= record.metrics["accuracy"] <= 1
