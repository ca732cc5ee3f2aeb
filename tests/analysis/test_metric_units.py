"""Metrics that are no shares, or better when lower, in ranking, recommendations and tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from builders import COST, make_record
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.margin import margin_in, margin_text
from peft_methods.analysis.pairs import PairwiseComparison, compare_pairs
from peft_methods.analysis.recommendations import recommend
from peft_methods.analysis.samples import sample_of
from peft_methods.analysis.sequential import decide
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.html.tables import comparison_table, differences_table
from peft_methods.report.paper.document import document
from peft_methods.report.paper.study import studies_of
from peft_methods.report.text.ranking import ranking_notes
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.tasks.number_predictions import NumberPredictions
from peft_methods.tasks.registry import TASKS

TASK = TASKS["regression"]
ROWS = 300
NOISE = {"full": 0.3, "lora": 0.31, "head_only": 1.2}
SECONDS = {"full": 30.0, "lora": 20.0, "head_only": 5.0}


def predictions(noise: float, seed: int, scale: float) -> NumberPredictions:
    true = np.tile(np.arange(11) / 2, 28)[:ROWS]
    common = np.random.default_rng(7).standard_normal(ROWS)
    own = np.random.default_rng([seed, int(100 * noise)]).standard_normal(ROWS)
    found = true + noise * (0.95 * common + 0.3 * own)
    return NumberPredictions((scale * found[:, None]).astype(np.float32), scale * true)


def compared(select_by: str, scale: float = 1.0) -> Comparison:
    """Return a comparison of three methods with three seeds; `scale` is the unit of the scores."""
    records, kept = [], {}
    for method, noise in NOISE.items():
        for seed in range(3):
            made = predictions(noise, seed, scale)
            quality = TASK.evaluate(made, ("score",))
            record = make_record(method, seed)
            data = replace(record.spec.recipe.data, select_by=select_by)
            recipe = replace(record.spec.recipe, task="regression", data=data)
            base = {k: v for k, v in record.metrics.items() if k not in ("accuracy", "macro_f1")}
            more: dict[str, Any] = {"train_seconds": SECONDS[method], **COST, **quality.scores}
            trivial = {"spearman": 0.0, "pearson": 0.0, "mae": 1.3 * scale, "r2": 0.0}
            records.append(
                replace(
                    record,
                    spec=replace(record.spec, recipe=recipe),
                    metrics={**base, **more},
                    quality=quality.plain(),
                    data={**record.data, "trivial_baseline": trivial, "majority": None},
                )
            )
            kept[record.fingerprint] = made
    return Comparison(tuple(records), predictions=kept)


@pytest.mark.parametrize("metric", ["spearman", "pearson", "mae", "r2"])
@pytest.mark.parametrize("scale", [1.0, 1000.0, 0.001])
def test_the_best_method_is_first_in_any_direction_and_unit(metric: str, scale: float) -> None:
    comparison = compared(metric, scale)
    (ranking,) = comparison.rankings.values()
    assert ranking.order[0] in ("full", "lora")
    assert ranking.order[-1] == "head_only"
    worst = ranking.pair("head_only", "full")
    assert worst is not None
    assert worst.verdict == "worse"
    assert worst.reversed().verdict == "better"
    assert worst.wins is not None
    assert worst.wins < 0.1
    means = {row.method: row.mean(metric) for row in comparison.rows()}
    for method, (low, high) in ranking.intervals.items():
        assert low < means[method] < high
        assert METRICS[metric].is_possible(low)
        assert METRICS[metric].is_possible(high)


def test_verdicts_do_not_depend_on_the_unit_of_the_scores() -> None:
    small, large = (next(iter(compared("mae", scale).rankings.values())) for scale in (1.0, 1000.0))
    assert large.margin == pytest.approx(1000 * small.margin) == pytest.approx(13.0)
    assert [pair.p for pair in large.pairs] == pytest.approx([pair.p for pair in small.pairs])
    assert [pair.verdict.split()[0] for pair in large.pairs] == [
        pair.verdict.split()[0] for pair in small.pairs
    ]


def test_recommendations_of_an_error_name_the_lowest() -> None:
    best, *others = recommend(compared("mae"))
    assert best.text.startswith("Full fine-tuning, mean absolute error 0.2")
    assert "below LoRA" in best.text
    assert "points" not in " ".join(answer.text for answer in (best, *others))
    fastest = next(one for one in others if one.question.startswith("Fastest within 0.013"))
    assert fastest.method == "lora"
    memory = next(one for one in others if one.question == "Least memory")
    assert "the lowest" in memory.text or "above Full fine-tuning" in memory.text


def test_recommendations_of_a_correlation_have_no_points() -> None:
    best, *_ = recommend(compared("spearman"))
    assert best.text.startswith("Full fine-tuning, Spearman 0.9")
    assert "above LoRA" in best.text
    assert "points" not in best.text


def test_paper_of_an_error_names_the_lowest_figure() -> None:
    comparison = compared("mae")
    one = replace(comparison, records=tuple(r for r in comparison.records if r.seed == 0))
    studies = studies_of(one, None)
    source = document(studies, "paper", {study.recipe: [] for study in studies})
    assert "none is recommended; Full fine-tuning, which has the lowest figure, was not" in source
    assert "highest figure" not in source


def test_tables_have_the_metrics_of_the_task_in_their_unit() -> None:
    comparison = compared("spearman")
    (ranking,) = comparison.rankings.values()
    rows = comparison.rows()
    headings = comparison_table(rows, ranking).headings
    assert [one for one in headings if one in ("Pearson", "Mean absolute error", "R²")]
    assert "Accuracy" not in headings
    differences = differences_table(rows, ranking)
    assert differences is not None
    assert differences.headings[0] == "Difference"
    notes = " ".join(ranking_notes(comparison))
    assert "points" not in notes
    assert "equal within 0.010" in notes


def test_margins_are_in_the_unit_of_the_metric() -> None:
    assert margin_in(METRICS["accuracy"], 0.01, 0.5) == 0.01
    assert margin_in(METRICS["spearman"], 0.01, 0.0) == 0.01
    assert margin_in(METRICS["mae"], 0.01, 250.0) == pytest.approx(2.5)
    assert margin_text(0.01, METRICS["accuracy"]) == "1 point"
    assert margin_text(0.01, METRICS["r2"]) == "0.010"
    assert margin_text(0.0101, METRICS["mae"]) == "0.011"


def test_a_lower_error_is_better_in_a_pair() -> None:
    pair = PairwiseComparison("a", "b", -0.2, -0.3, -0.1, 0.001, metric=METRICS["mae"])
    assert (pair.verdict, pair.reversed().verdict) == ("better", "worse")


def test_seeds_are_added_for_errors_too() -> None:
    scores: dict[str, list[Any]] = {
        method: [TASK.example_scores(predictions(noise, seed, 1.0), "mae") for seed in range(3)]
        for method, noise in NOISE.items()
    }
    found = decide(scores, SeedPlan(3, 5), 0.05, METRICS["mae"])
    assert found.pairs[0].first == "full"
    assert "head_only" not in found.undecided


@pytest.mark.parametrize(("metric", "most"), [("spearman", 2.0), ("accuracy", 1.0), ("mae", None)])
def test_differences_of_few_noisy_rows_are_possible(metric: str, most: float | None) -> None:
    """Two correlations differ by at most 2, two shares by 1, and errors by any amount."""
    scores = np.random.default_rng(0).uniform(-9, 9, (2, 2, 12))
    samples = {"full": sample_of(scores[0], 5.0), "lora": sample_of(scores[1], 5.0)}
    (pair,) = compare_pairs(samples, ("full", "lora"), 0.01, metric=METRICS[metric])
    if most is None:
        assert min(-pair.low, pair.high) > 2
    else:
        assert (pair.low, pair.high) == (-most, most)
