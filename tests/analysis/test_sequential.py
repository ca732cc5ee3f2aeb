"""Seeds added until a comparison is decided: the looks, the verdicts and their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sequential_simulation import Job, decisions, is_wrong

from peft_methods.analysis.sequential import Decision, decide
from peft_methods.analysis.spending import levels
from peft_methods.runs.seed_plan import SeedPlan

ROWS = 2000


def scores(accuracy: float, seeds: int, spread: float = 0.002, seed: int = 0) -> list[np.ndarray]:
    """Scores by seed; all methods find the same rows hard."""
    rng = np.random.default_rng(seed)
    hard = np.linspace(0, 1, ROWS)
    return [(hard < accuracy + spread * rng.standard_normal()).astype(float) for _ in range(seeds)]


def test_levels_of_all_looks_spend_the_error_rate() -> None:
    for first, most in ((3, 10), (2, 6), (3, 20)):
        found = np.asarray(levels(first, most, 0.05))
        rng = np.random.default_rng(0)
        walks = rng.standard_normal((100_000, most)).cumsum(1)[:, first - 1 :]
        z = np.abs(walks) / np.sqrt(np.arange(first, most + 1))
        alarms = (z > stats.norm.ppf(1 - found / 2)).any(1)
        assert alarms.mean() == pytest.approx(0.05, abs=0.003)
    assert levels(4, 4, 0.05) == pytest.approx((0.05,), abs=1e-4)


def test_published_boundaries_of_five_looks() -> None:
    """Of the spending function that resembles Pocock's boundary, two-sided 5 %, equal steps."""
    bounds = stats.norm.ppf(1 - np.asarray(levels(1, 5, 0.05)) / 2)
    assert bounds == pytest.approx([2.44, 2.43, 2.41, 2.40, 2.39], abs=0.01)


def test_a_worse_method_gets_no_more_seeds() -> None:
    plan = SeedPlan(3, 10)
    given = {"a": scores(0.9, 3), "b": scores(0.897, 3, seed=1), "c": scores(0.6, 3, seed=2)}
    found = decide(given, plan, margin=0.001)
    assert found.undecided == ("b",)
    assert found.wanted == {"a": 4, "b": 4}
    assert found.seeds == {"a": 3, "b": 3, "c": 3}


def test_the_procedure_ends_at_the_limit() -> None:
    given = {"a": scores(0.9, 5), "b": scores(0.9, 5, seed=1)}
    found = decide(given, SeedPlan(3, 5), margin=1e-6)
    assert (len(found.undecided), found.wanted, found.seeds) == (1, {}, {"a": 5, "b": 5})


def test_equal_methods_are_decided_without_further_seeds() -> None:
    given = {"a": scores(0.9, 3, 0.0005), "b": scores(0.9, 3, 0.0005, seed=1)}
    found = decide(given, SeedPlan(3, 10), margin=0.02)
    assert (found.undecided, found.wanted) == ((), {})
    assert found.pairs[0].is_equal


def test_a_session_in_steps_decides_as_one_that_has_all_seeds() -> None:
    """Seeds that the looks did not ask for do not count, so a report agrees with the session."""
    whole = {
        "a": scores(0.9, 10),
        "b": scores(0.893, 10, 0.004, seed=1),
        "c": scores(0.8, 10, seed=2),
    }
    plan, state = SeedPlan(2, 10), None
    have = dict.fromkeys(whole, 2)
    while state is None or state.wanted:
        state = decide({m: whole[m][:n] for m, n in have.items()}, plan, margin=0.005)
        have |= state.wanted
    assert _of(decide(whole, plan, margin=0.005)) == _of(state)
    assert state.seeds == have


def _of(decision: Decision) -> tuple[object, ...]:
    return decision.pairs, decision.seeds, decision.undecided


def test_a_verdict_stays_whatever_later_seeds_say() -> None:
    """`b` is worse after three seeds; `c` keeps the procedure going and `a` falls with new ones."""
    falling = [*scores(0.9, 3), *scores(0.80, 7, seed=3)]
    given = {
        "a": falling,
        "b": scores(0.85, 10, seed=1),
        "c": scores(0.899, 10, 0.02, seed=2),
    }
    found = decide(given, SeedPlan(3, 10), margin=0.001)
    (pair,) = (one for one in found.pairs if {one.first, one.second} == {"a", "b"})
    worse = "worse" if pair.first == "b" else "better"
    assert pair.verdict == worse


def test_failed_seeds_count_as_looked_at() -> None:
    given = {
        "a": scores(0.9, 3),
        "b": [None, *scores(0.9, 2, seed=1)],
        "c": [None, None, *scores(0.9, 1)],
    }
    found = decide(given, SeedPlan(3, 4), margin=1e-6)
    assert set(found.samples) == {"a", "b"}
    assert found.wanted == {"a": 4, "b": 4}


def test_methods_without_a_pair_need_no_seeds() -> None:
    assert decide({"a": scores(0.9, 3)}, SeedPlan(3, 10), 0.01).wanted == {}
    assert decide({}, SeedPlan(3, 10), 0.01).wanted == {}


EQUAL = [
    Job((0.8,) * 2, (2.3,) * 2),
    Job((0.8,) * 2, (6, 0.5)),
    Job((0.8,) * 4, (6, 0.5, 0.5, 0.5), rows=500),
    Job((0.8,) * 8, (2.3,) * 8, rows=500),
    Job((0.8,) * 2, (1.0,) * 2, SeedPlan(2, 20)),
]
AT_THE_MARGIN = [
    Job((0.805, 0.7949), (0.3, 0.3), rows=25_000),
    Job((0.805, 0.7949), (1.0, 1.0), SeedPlan(3, 20), rows=10_000),
    Job((0.81, 0.7949, 0.7949), (0.3, 0.3, 0.3), rows=5000, margin=0.015),
]


def limit(repetitions: int) -> float:
    """Return what an error rate of 5 % exceeds by chance in one of 1,000 simulations."""
    return float(stats.binom.ppf(0.999, repetitions, 0.05)) / repetitions


def test_equal_methods_are_rarely_decided_wrongly() -> None:
    job = Job((0.8,) * 2, (2.3,) * 2, SeedPlan(3, 6), rows=200)
    assert np.mean([is_wrong(one, job) for one in decisions(job, 60)]) <= limit(60)


@pytest.mark.simulation
@pytest.mark.parametrize("job", [*EQUAL, *AT_THE_MARGIN], ids=str)
def test_error_rate_of_the_whole_procedure(job: Job) -> None:
    repetitions = 500 if len(set(job.spreads)) == 1 else 2000  # where it is near the limit
    rate = np.mean([is_wrong(one, job) for one in decisions(job, repetitions)])
    print(f"\nwrong in {rate:.1%}: {job}")
    assert rate <= limit(repetitions)


@pytest.mark.simulation
@pytest.mark.parametrize(
    "job",
    [
        Job((0.80, 0.83), (1.0, 1.0)),
        Job((0.80, 0.82), (1.0, 1.0), rows=5000),
        Job((0.80, 0.80), (0.5, 0.5), rows=25_000),
        Job((0.80, 0.80), (0.5, 0.5), rows=25_000, margin=0.02),
    ],
    ids=str,
)
def test_what_the_procedure_decides(job: Job) -> None:
    found = list(decisions(job, 200))
    decided = np.mean([not one.undecided for one in found])
    seeds = np.mean([one.seeds["0"] for one in found])
    print(f"\ndecided in {decided:.0%} with {seeds:.1f} seeds in the mean: {job}")
    assert decided > 0.3
