"""Rankings of records with predictions, their tables and recommendations."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    CLEARLY_DIFFERENT,
    TEST_LABELS,
    make_comparison,
    make_predictions,
    make_record,
    random_record,
    with_changed_specs,
)
from peft_methods.analysis.candidates import Candidates
from peft_methods.analysis.constraints import parse_constraints
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.analysis.questions import QuestionKind
from peft_methods.analysis.ranking import NotCompared
from peft_methods.analysis.recommendations import describe_comparison, recommend
from peft_methods.api import PrintableComparison, compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.comparison import markdown_table
from peft_methods.report.text.csv_table import csv_table
from peft_methods.runs.spec import run_specs
from peft_methods.tasks.registry import with_task
from peft_methods.utils.errors import OptionError


def test_tables_of_failed_runs_have_the_columns_of_their_task() -> None:
    recipe = with_task(load_recipe("stsb_regression", ["gpu=false"]))
    spec = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0]
    failed = make_record(spec=spec, status="failed", metrics={}, message="no texts")
    shown = markdown_table(PrintableComparison((failed,)))
    assert "Spearman" in shown
    assert "Accuracy" not in shown


def answers(comparison: PrintableComparison) -> dict[str, tuple[str | None, str]]:
    return {
        answer.question: (answer.method, answer.text) for answer in comparison.recommendations()
    }


def test_methods_that_are_not_separable_share_a_letter() -> None:
    ranking = make_comparison(CLEARLY_DIFFERENT).rankings["embedded"]
    assert ranking.groups == {"lora": "a", "full": "a", "head_only": "b"}
    assert (ranking.metric, ranking.order, ranking.not_compared) == (
        "accuracy",
        ("lora", "full", "head_only"),
        {},
    )
    pair = ranking.pair("head_only", "lora")
    assert pair is not None
    assert pair.is_separable
    assert pair.low < pair.difference < pair.high < 0
    assert pair.difference == pytest.approx(0.61 - 0.9067, abs=1e-3)
    assert ranking.pair("lora", "head_only") == pair.reversed()
    low, high = ranking.intervals["lora"]
    assert low < 0.9067 < high
    assert ranking.pareto_optimal == {"full": False, "lora": True, "head_only": True}


def test_method_with_one_seed_has_an_interval_and_no_group() -> None:
    comparison = make_comparison(
        {
            "full": ([0.9], {}),
            "lora": ([0.8], {}),
            "ia3": ([0.9, 0.8], {}),
            "bitfit": ([0.6, 0.6], {}),
        }
    )
    ranking = comparison.rankings["embedded"]
    assert ranking.not_compared == dict.fromkeys(("full", "lora"), NotCompared.ONE_SEED)
    assert set(ranking.intervals) == {"full", "lora", "ia3", "bitfit"}
    assert set(ranking.groups) == {"ia3", "bitfit"}
    assert "90.0 (1 seed)" in comparison.table()
    assert "an interval covers one trained model only" in comparison.table()


def test_method_tested_on_other_examples_is_left_out_and_reported() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    other = make_predictions(0.9, 3, TEST_LABELS[::-1].copy())
    mixed = PrintableComparison(comparison.records, (), {**comparison.predictions, "lora1": other})
    assert mixed.rankings["embedded"].not_compared == {"lora": NotCompared.OTHER_EXAMPLES}
    assert (
        "LoRA: tested on different examples than the other methods, so not assigned to a group."
        in mixed.table()
    )


def test_ranking_without_predictions_has_no_groups_and_ignores_missing_metrics() -> None:
    bare = PrintableComparison(make_comparison(CLEARLY_DIFFERENT).records)
    ranking = bare.rankings["embedded"]
    assert (ranking.groups, ranking.intervals, ranking.pairs) == ({}, {}, ())
    lost = make_comparison(
        {**CLEARLY_DIFFERENT, "ia3": ([0.9, 0.9], {"peak_memory_bytes": float("nan")})}
    )
    assert lost.rankings["embedded"].pareto_optimal["ia3"] is None
    costs = PrintableComparison(tuple(random_record(method) for method in ("full", "lora")))
    assert costs.rankings["embedded"].groups == {}
    assert "Best quality" not in costs.table()
    assert "Least memory: Full fine-tuning, 256.0 MiB." in costs.table()


def test_macro_f1_ranks_methods_if_the_recipe_selects_by_it() -> None:
    comparison = with_changed_specs(
        make_comparison(CLEARLY_DIFFERENT), ("data.select_by", "macro_f1")
    )
    ranking = comparison.rankings["embedded"]
    assert ranking.metric == "macro_f1"
    lora = next(row for row in comparison.rows() if row.method == "lora")
    assert ranking.intervals["lora"][0] < lora.mean("macro_f1") < ranking.intervals["lora"][1]
    headings = [line for line in comparison.table().splitlines() if line.startswith("Method")]
    assert "Macro F1 " in headings[-1]


def test_tables_show_groups_intervals_and_differences() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    text, markdown = comparison.table(width=120), markdown_table(comparison)
    line = next(
        line for line in text.splitlines() if line.startswith("Head only") and "< 0.001" in line
    )
    assert " b " in line
    assert "-29.7 (" in line
    assert "methods that share a letter cannot be told apart" in text
    assert "Pareto front of accuracy, time, memory and parameters: Head only, LoRA." in text
    assert re.search(r"\| +Group \| +To the best, points \|", markdown)
    found = {line["method"]: line for line in csv.DictReader(io.StringIO(csv_table(comparison)))}
    assert (found["lora"]["group"], found["lora"]["to_best"], found["full"]["on_front"]) == (
        "a",
        "",
        "False",
    )
    assert float(found["head_only"]["to_best_high"]) < 0
    assert float(found["lora"]["interval_low"]) < 0.9067 < float(found["lora"]["interval_high"])


def test_cheaper_of_two_methods_is_recommended_if_not_separable() -> None:
    made = make_comparison(
        {
            "full": ([0.93, 0.91, 0.92], {"train_seconds": 30.0}),
            "lora": ([0.905, 0.92, 0.915], {"train_seconds": 20.0}),
        }
    )
    method, text = answers(made)["Best quality"]
    assert method == "lora"
    best = recommend(made)[0]
    assert (best.kind, best.highest) == (QuestionKind.BEST_QUALITY, "full")
    assert text.startswith("Full fine-tuning, accuracy 92.0 %, 0.7 points above LoRA (undecided: ")
    assert (
        "run more seeds, or take the cheapest of them, LoRA (20.0 s of training instead of 30.0 s)."
        in text
    )
    method, text = answers(make_comparison(CLEARLY_DIFFERENT))["Best quality"]
    assert method == "lora"
    assert text.endswith("Undecided against Full fine-tuning, and the cheapest of them to train.")


def test_separable_best_method_is_recommended() -> None:
    method, text = answers(
        make_comparison({name: CLEARLY_DIFFERENT[name] for name in ("lora", "head_only")})
    )["Best quality"]
    assert method == "lora"
    assert "29.7 points above Head only (better: " in text
    assert text.endswith(", better than every other.")


def test_recommend_answers_every_question() -> None:
    found = answers(make_comparison(CLEARLY_DIFFERENT))
    assert found["Least memory"][0] == found["Smallest checkpoint"][0] == "head_only"
    assert "29.7 points below LoRA (worse: " in found["Least memory"][1]
    assert found["Fastest within 1 point of the best"] == (
        "lora",
        "LoRA, 20.0 s of training; accuracy 90.7 %, the highest.",
    )
    assert "- Smallest checkpoint: Head only, 0.0 MiB" in make_comparison(CLEARLY_DIFFERENT).table()


def test_limits_restrict_the_recommended_methods() -> None:
    found = answers(make_comparison(CLEARLY_DIFFERENT, "memory=8GB"))
    assert found["Fits in 8GB"] == ("lora", "LoRA (6,675.7 MiB), Head only (1,907.3 MiB).")
    assert all(method != "full" for method, _ in found.values())
    assert answers(make_comparison(CLEARLY_DIFFERENT, "time=10s"))["Best quality"][0] == "head_only"
    assert (
        "From these figures alone, memory up to 8GB, time up to 1min:"
        in make_comparison(CLEARLY_DIFFERENT, "memory=8GB,time=1min").table()
    )


def test_method_fits_only_if_every_seed_was_measured_and_fits() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT, "memory=8GB")
    comparison.records[3].metrics["peak_memory_bytes"] = 8.1e9
    assert answers(comparison)["Fits in 8GB"][0] == "head_only"
    comparison.records[-1].metrics["peak_memory_bytes"] = None
    text = (
        "no method fits; the least memory is Head only's, 1,907.3 MiB. Seeds beyond: Full "
        "fine-tuning (seed 0 took 8,583.1 MiB), Head only (seed 2 has no measured memory), LoRA "
        "(seed 0 took 7,724.8 MiB)."
    )
    assert answers(comparison) == {"Within memory 8GB": (None, text)}
    (answer,) = comparison.recommendations()
    assert answer.kind is QuestionKind.WITHIN_LIMITS


def with_status(number: int, status: str, limits: str) -> dict[str, tuple[str | None, str]]:
    """Return the answers if one run ended so. The runs of LoRA are numbers 3 to 5."""
    made = make_comparison(CLEARLY_DIFFERENT, limits)
    records = list(made.records)
    records[number] = replace(records[number], status=status, metrics={})
    return answers(replace(made, records=tuple(records)))


@pytest.mark.parametrize(
    ("status", "limits", "question", "reason"),
    [
        ("oom", "memory=20GB", "Within memory 20GB", "seed 1 ran out of memory"),
        ("oom", "time=1h", "Within time 1h", "seed 1 ran out of memory"),
        ("timeout", "time=1h", "Within time 1h", "seed 1 ended at the time limit of a run"),
    ],
)
def test_method_with_a_seed_that_ended_at_a_limit_does_not_fit(
    status: str, limits: str, question: str, reason: str
) -> None:
    found = with_status(4, status, limits)
    assert found[question] == (None, f"not LoRA ({reason}).")
    assert all(method != "lora" for method, _ in found.values())


@pytest.mark.parametrize(
    ("status", "limits"),
    [("timeout", "memory=20GB"), ("failed", "time=1h"), ("crashed", "memory=20GB")],
)
def test_method_with_a_seed_that_ended_otherwise_may_fit(status: str, limits: str) -> None:
    found = with_status(4, status, limits)
    assert found["Best quality"][0] == "lora"
    assert not any(question.startswith("Within") for question in found)


def test_without_limits_a_seed_that_ran_out_of_memory_leaves_nothing_out() -> None:
    made = make_comparison(CLEARLY_DIFFERENT)
    records = list(made.records)
    records[4] = replace(records[4], status="oom", metrics={})
    assert answers(replace(made, records=tuple(records)))["Best quality"][0] == "lora"


@pytest.mark.parametrize(
    ("text", "memory", "seconds"),
    [
        ("memory=8GB,time=10min", 8e9, 600),
        ("memory=1.5gib", 1.5 * 2**30, None),
        (" time = 2 h ", None, 7200),
        ("memory=512MiB", 2**29, None),
    ],
)
def test_parse_limits_accepts_units(text: str, memory: float | None, seconds: float | None) -> None:
    limits = parse_constraints(text)
    assert {name: limit.most for name, limit in limits.items()} == {
        name: most for name, most in (("memory", memory), ("time", seconds)) if most is not None
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memroy=8GB", "unknown limit 'memroy'. Did you mean 'memory'? Allowed: memory, time."),
        (
            "memory=8",
            "memory='8' must be a number above 0 with a unit, for example 8GB. Units: B, KB,",
        ),
        (
            "time=10GB",
            "time='10GB' must be a number above 0 with a unit, for example 10min. "
            "Units: s, min, h.",
        ),
        ("memory=0GB", "must be a number above 0"),
        ("memory=-1GB", "must be a number above 0"),
        ("memory", "must have the form NAME=VALUE"),
        ("", "must have the form NAME=VALUE"),
        ("time=1s,time=2s", "has two limits for time"),
    ],
)
def test_parse_limits_rejects_invalid_text(text: str, expected: str) -> None:
    with pytest.raises(OptionError, match="budget") as caught:
        parse_constraints(text)
    assert expected in str(caught.value)
    assert caught.value.setting == "budget"


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_rejected_as_limits(text: str) -> None:
    try:
        limits = parse_constraints(text)
    except OptionError as error:
        assert "budget" in str(error)
    else:
        assert all(limit.most > 0 for limit in limits.values())


def test_compare_returns_recommendations(tiny_recipe: Any, tmp_path: Any) -> None:
    with pytest.raises(OptionError, match="budget memory='lots'"):
        compare(str(tiny_recipe), budget="memory=lots")
    made = compare(
        str(tiny_recipe),
        methods=["full", "head_only"],
        seeds=2,
        results=tmp_path,
        budget="memory=100GB,time=10min",
        progress=False,
    )
    assert set(made.rankings["tiny"].groups) == {"full", "head_only"}
    assert [answer.question for answer in made.recommendations()][:2] == [
        "Best quality",
        "Fits in 100GB",
    ]
    assert "From these figures alone, memory up to 100GB" in made.table()


def test_cheaper_of_two_overlapping_methods_is_recommended_with_one_seed() -> None:
    """Methods with one seed are never separable; a large difference is called possible chance."""
    near = make_comparison(
        {"full": ([0.905], {"train_seconds": 30.0}), "lora": ([0.9], {"train_seconds": 20.0})}
    )
    method, text = answers(near)["Best quality"]
    assert method == "lora"
    assert "with one seed that may be chance" in text
    assert (
        "run more seeds, or take the cheapest of them, LoRA (20.0 s of training instead of 30.0 s)."
        in text
    )
    far = make_comparison(
        {"full": ([0.905], {"train_seconds": 30.0}), "lora": ([0.6], {"train_seconds": 20.0})}
    )
    method, text = answers(far)["Best quality"]
    assert method == "full"
    assert text.endswith("30.4 points above LoRA; with one seed that may be chance.")


def test_recommendation_without_predictions_gives_the_right_reason() -> None:
    made = make_comparison(
        {
            "full": ([0.9, 0.91], {"checkpoint_bytes": 9.0}),
            "lora": ([0.6, 0.62], {"checkpoint_bytes": 1.0}),
        }
    )
    bare, lacking = (
        PrintableComparison(made.records),
        "test predictions to compare them by are missing",
    )
    assert answers(bare)["Best quality"][1].endswith(
        f"29.5 points above LoRA; that may be chance: {lacking}."
    )
    smallest = answers(bare)["Smallest checkpoint"][1]
    assert smallest.endswith(f"29.5 points below Full fine-tuning (not compared: {lacking}).")
    assert "missing" not in answers(made)["Best quality"][1]


def test_verdict_keeps_signs_if_the_interval_contains_zero() -> None:
    """By Holm's p, methods may be separable although their simultaneous interval contains zero."""
    assert (
        describe_comparison(PairwiseComparison("full", "lora", 0.05, -0.003, 0.103, 0.04))
        == "better: -0.3 to +10.3"
    )
    assert (
        describe_comparison(PairwiseComparison("full", "lora", 0.05, 0.003, 0.097, 0.04))
        == "better: 0.3 to 9.7"
    )
    assert (
        describe_comparison(PairwiseComparison("lora", "full", -0.05, -0.097, -0.003, 0.04))
        == "worse: 0.3 to 9.7"
    )


def test_a_method_that_a_candidate_beats_is_none_though_a_single_seed_overlaps_it() -> None:
    """IA3 has one seed, so only its interval is known. Full fine-tuning is as good; LoRA is not."""
    made = make_comparison(
        {
            "full": ([0.9, 0.9, 0.9], {"train_seconds": 30.0}),
            "lora": ([0.88, 0.88, 0.88], {"train_seconds": 20.0}),
            "ia3": ([0.91], {"train_seconds": 25.0}),
        }
    )
    ranking = replace(
        made.rankings["embedded"],
        pairs=(PairwiseComparison("full", "lora", 0.021, 0.01, 0.03, 0.001),),
        intervals={"full": (0.88, 0.92), "lora": (0.86, 0.9), "ia3": (0.88, 0.94)},
    )
    candidates = Candidates("embedded", tuple(made.rows()), ranking, {})
    best = candidates.best()
    assert best is not None
    assert best.method == "ia3"
    assert [row.method for row in candidates.alike(best)] == ["full"]


def test_the_best_is_better_than_those_it_was_compared_with() -> None:
    made = make_comparison(
        {"full": ([0.95, 0.951, 0.95], {}), "lora": ([0.7, 0.7, 0.701], {}), "ia3": ([0.75], {})}
    )
    method, text = answers(made)["Best quality"]
    assert method == "full"
    assert text.endswith(", better than every other that is compared; IA3 has one seed.")


@pytest.mark.parametrize(
    ("low", "high", "p", "margin", "verdict"),
    [
        (0.001, 0.009, 0.01, 0.01, "better"),
        (-0.004, 0.0084, 0.4, 0.01, "equal within 0.9 points"),
        (-0.01, 0.002, 0.4, 0.01, "equal within 1 point"),
        (-0.004, 0.0084, 0.4, 0.005, "undecided"),
        (-0.004, 0.03, 0.2, 0.01, "undecided"),
    ],
)
def test_pairs_are_better_equal_within_a_margin_or_undecided(
    low: float, high: float, p: float, margin: float, verdict: str
) -> None:
    pair = PairwiseComparison("full", "lora", (low + high) / 2, low, high, p, margin)
    assert pair.verdict == verdict
    assert pair.reversed().verdict == verdict.replace("better", "worse")
    assert pair.reversed().reversed() == pair
    assert replace(pair, wins=0.75).reversed().wins == 0.25


def test_a_cheaper_method_that_is_equal_within_the_margin_is_recommended() -> None:
    made = make_comparison(
        {
            "full": ([0.9, 0.9, 0.9], {"train_seconds": 30.0}),
            "lora": ([0.9, 0.9, 0.9], {"train_seconds": 15.0}),
        },
        margin=0.2,
    )
    best = recommend(made)[0]
    assert best.method == "lora"
    assert (
        "is equal to Full fine-tuning within 20 points: it trains in 50% of the time" in best.text
    )
    assert "equal within" in made.table()
    assert "Fastest within 20 points of the best" in answers(made)
