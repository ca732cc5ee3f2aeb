"""Sessions that add seeds until the comparison is decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import BENCHMARK, make_comparison, make_record
from peft_methods.api import compare
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.dry_run import plan_text
from peft_methods.report.text.notes import notes
from peft_methods.runs.plan import run_groups
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.record import Record
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.runs.store import Store
from peft_methods.utils.errors import OptionError

CHECKED = PreparedRecipe(
    {"class_counts": {name: (20, 20) for name in ("train", "validation", "test")}}, {}, 0.01, 1.0
)
FAST = ["budget.epochs=1", "data.train=40"]


def decided(recipe: Path, results: Path, **more: Any) -> Any:
    return compare(
        str(recipe),
        methods=["full", "head_only"],
        settings=FAST,
        results=results,
        progress=False,
        **more,
    )


def test_seeds_are_added_up_to_the_limit_and_no_verdict_is_lost(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """Both methods guess: fifty rows never show that they are equal within a tenth of a point."""
    comparison = decided(tiny_recipe, tmp_path, decide="0.1pp", seeds=2, seeds_max=4)
    (ranking,) = comparison.rankings.values()
    assert ranking.seeds_added is not None
    assert ranking.seeds_added.plan == SeedPlan(2, 4)
    assert sorted(record.seed for record in comparison.records if record.method_name == "full") == [
        *range(ranking.seeds_added.seeds["full"])
    ]
    assert ranking.seeds_added.wanted == {}
    again = decided(tiny_recipe, tmp_path, decide="0.1pp", seeds=2, seeds_max=4)
    assert all(record.reused for record in again.records)
    assert again.rankings["tiny"].pairs == ranking.pairs
    assert "The error rate of 5 % holds for all looks" in again.table()


def test_the_option_adds_to_the_seeds_of_an_earlier_session(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    """The earlier session knew of no plan."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    results = pytester.path / "results"
    plain = (
        *("-p", "peft_methods.plugin", "-p", "no:cacheprovider", f"--peft-recipe={tiny_recipe}"),
        *("--peft-method=full,head_only", "--peft-seeds=2", "--peft-results=results"),
        "--peft-silence=V301",  # a tiny model may learn nothing
        *(f"--peft-set={one}" for one in FAST),
    )
    assert pytester.runpytest_inprocess(*plain).ret == 0
    earlier = {one.fingerprint: one.finished for one in Store(results).records()[0]}
    decide = ("--peft-decide=0.1pp", "--peft-seeds-max=3")
    result = pytester.runpytest_inprocess(*plain, *decide)
    assert result.ret == 0
    assert "The error rate of 5 % holds for all looks" in result.stdout.str()
    records, _ = Store(results).records()
    assert {one.fingerprint: one.finished for one in records if one.seed < 2} == earlier
    seeds = {(one.method_name, one.seed) for one in records}
    assert seeds == {(method, seed) for method in ("full", "head_only") for seed in range(3)}
    assert {one.seed_plan for one in records if one.seed == 2} == {SeedPlan(2, 3)}


def test_no_seeds_are_added_after_the_time(tiny_recipe: Path, tmp_path: Path) -> None:
    comparison = decided(tiny_recipe, tmp_path, decide="0.1pp", seeds=2, decide_time=0.1)
    (ranking,) = comparison.rankings.values()
    assert ranking.seeds_added is not None
    assert len(comparison.records) == 4
    assert ranking.seeds_added.wanted == {"full": 3, "head_only": 3}
    assert "the session ended before the next seeds" in comparison.table()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decide": "1"}, r"decide '1' must be a number of points .* decide=…"),
        ({"decide": "1pp", "seeds_max": 1}, "seeds_max = '1' should be the most seeds"),
        ({"decide": "1pp", "seeds_max": 201}, "whole number from 2 to 200"),
        ({"decide": "1pp", "seeds": 5, "seeds_max": 3}, "each method begins with 5"),
        ({"decide": "1pp", "seeds": 1}, "1 seed to begin with: a decision needs 2 or more"),
        ({"decide": "1pp", "decide_time": "soon"}, "decide_time 'soon' should be a time"),
        ({"decide": "1pp", "margin": "2pp"}, "decided within '1pp', but the margin is '2pp'"),
        ({"seeds_max": 5}, "seeds_max = 5 limits how many seeds are added, but none are"),
        ({"decide_time": "1min"}, "decide_time = '1min' limits how many seeds are added"),
    ],
)
def test_bad_values_are_refused_before_anything_is_trained(
    given: dict[str, Any], message: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        decided(tiny_recipe, tmp_path, **given)


def test_further_seeds_follow_the_largest(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=[4, 7]"])
    (group,) = run_groups([recipe], ["lora"], "cpu", "trainer", seeds_max=5)
    longer = group.with_seeds(4)
    assert "Seeds are then added until" in plan_text([group], {"tiny": CHECKED}, {}, 2)
    assert [run.seed for run in longer.runs] == [4, 7, 8, 9]
    assert {run.seed_plan for run in longer.runs} == {SeedPlan(2, 5)}
    (alone,) = run_groups(
        [load_recipe(str(tiny_recipe), ["budget.seeds=[8]"])], ["lora"], "cpu", "trainer"
    )
    assert alone.runs[0].key == longer.runs[2].key  # its record counts


def test_a_stored_record_keeps_its_plan() -> None:
    record = replace(make_record(), seed_plan=SeedPlan(3, 8))
    assert Record.from_json(record.to_json()) == record
    assert make_record().to_json()["seed_plan"] is None


def test_the_text_says_who_was_decided_when() -> None:
    comparison = make_comparison(
        {
            "full": ([0.9, 0.9, 0.9, 0.91], {}),
            "lora": ([0.9, 0.91, 0.9, 0.9], {}),
            "ia3": ([0.6, 0.6, 0.61], {}),
        },
        margin=0.001,
    )
    plan = SeedPlan(3, 4)
    planned = replace(
        comparison, records=tuple(replace(one, seed_plan=plan) for one in comparison.records)
    )
    (note,) = (one.text for one in notes(planned) if "Seeds were added" in one.text)
    assert "Decided: IA3 after 3. Undecided with the limit of 4 seeds: " in note
