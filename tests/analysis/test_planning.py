"""Plans: how many seeds and test rows would decide a comparison, and how often they do."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from planning_simulation import Job, planned
from scipy import stats

from builders import make_comparison
from peft_methods.analysis.pairs import compare_pairs
from peft_methods.analysis.planning import SURE, plan
from peft_methods.analysis.samples import Sample, sample_of
from peft_methods.report.text.plans import plans_text

JOBS = [
    Job(2, 1.0, 0.02),
    Job(2, 2.3, 0.03, rows=500),
    Job(4, 1.0, 0.02),
    Job(8, 1.0, 0.03, rows=500),
    Job(2, 0.5, 0.0, margin=0.02),
    Job(3, 0.5, 0.01, rows=5000),
]


def sample(accuracy: float, spread: float, seed: int, rows: int = 1000) -> Sample:
    rng = np.random.default_rng(seed)
    level = accuracy + spread * np.asarray([-1, 0, 1])[:, None]
    return sample_of((rng.random((3, rows)) < level).astype(float))


def test_a_clear_difference_needs_few_seeds_and_a_small_one_many() -> None:
    chosen = {}
    for name, accuracy in (("clear", 0.70), ("small", 0.78)):
        samples = {"best": sample(0.82, 0.02, 0), "other": sample(accuracy, 0.02, 1)}
        chosen[name] = plan(samples, "best", "other")[0].seeds
    assert chosen["clear"] < chosen["small"]


def test_more_rows_are_planned_where_seeds_alone_do_not_decide() -> None:
    """All seeds of a method give the same answers, so only rows can say more."""
    rng = np.random.default_rng(0)
    answers = {name: rng.permutation(200) < right for name, right in (("a", 162), ("b", 160))}
    samples = {name: sample_of(np.stack([one] * 3).astype(float)) for name, one in answers.items()}
    alone, *more = plan(samples, "a", "b", margin=0.06)
    assert not alone.is_sure
    assert alone.rows == 200
    assert [one.rows > 200 and one.is_sure for one in more] == [True]


def test_a_plan_is_the_same_every_time_and_in_both_directions() -> None:
    samples = {"a": sample(0.82, 0.02, 0), "b": sample(0.79, 0.02, 1), "c": sample(0.8, 0.02, 2)}
    assert plan(samples, "a", "b") == plan(samples, "a", "b")
    assert plan(samples, "a", "b")[0].seeds == plan(samples, "b", "a")[0].seeds


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_methods_that_give_the_same_answers_have_a_plan(right: float) -> None:
    same = sample_of(np.full((3, 500), right))
    assert 0 <= plan({"a": same, "b": same}, "a", "b")[0].chance <= 1


def test_table_and_report_say_what_would_decide(tmp_path: Path) -> None:
    comparison = make_comparison(
        {"full": ([0.90, 0.91, 0.90], {}), "lora": ([0.87, 0.90, 0.88], {})}, margin=0.03
    )
    (ranking,) = comparison.rankings.values()
    assert ranking.pairs[0].verdict == "undecided"
    text = plans_text(ranking, {"full": "Full fine-tuning", "lora": "LoRA"})
    assert text.startswith("To decide what is undecided against Full fine-tuning")
    assert text in comparison.table(width=2000)
    report = comparison.report(tmp_path).read_text(encoding="utf-8")
    assert html.escape(text) in report


def test_nothing_is_planned_where_all_is_decided() -> None:
    comparison = make_comparison({"full": ([0.9] * 3, {}), "lora": ([0.5] * 3, {})})
    (ranking,) = comparison.rankings.values()
    assert compare_pairs(ranking.samples, ranking.order, 0.01)[0].is_separable
    assert plans_text(ranking, {"full": "Full", "lora": "LoRA"}) == ""


def test_sure_plans_decide() -> None:
    sure = [decides for one, decides in planned(JOBS[4], 6) if one.is_sure]
    assert np.mean(sure) >= 0.5


@pytest.mark.simulation
@pytest.mark.parametrize("job", JOBS, ids=str)
def test_chances_are_what_they_say(job: Job) -> None:
    found = list(planned(job, 150))
    sure = [decides for one, decides in found if one.is_sure]
    others = [(one.chance, decides) for one, decides in found if not one.is_sure]
    predicted, real = np.mean(others, axis=0) if others else (0.0, 0.0)
    print(
        f"\n{job}: {len(sure)} sure plans decide in {np.mean(sure):.0%}; {len(others)} others, of "
        f"a chance of {predicted:.0%} in the mean, in {real:.0%}"
    )
    assert np.mean(sure) >= stats.binom.ppf(0.001, len(sure), SURE) / len(sure)
