"""Statistics compared with references, by property, and by simulated error rate and power."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.special import ndtri
from sklearn.metrics import f1_score

from peft_methods.analysis.groups import letters
from peft_methods.analysis.pareto import pareto
from peft_methods.analysis.significance import (
    Differences,
    common_spread,
    differences,
    holm,
    interval,
    sample_of,
)
from peft_methods.tasks.class_scores import correct, macro_f1_scores

SEED_SPREAD = 0.023  # standard deviation of a method's accuracy over seeds
EXAMPLES = 1000
SIMULATIONS = 1000


def simulate(
    accuracies: list[float],
    spreads: list[float],
    seeds: int,
    decide: Callable[[Any], Any],
    examples: int = EXAMPLES,
) -> float:
    """Return the share of simulations for which `decide` is true.

    `decide` gets answers (simulations, methods, seeds, examples). An answer is right if the sum of
    the example's difficulty for all methods, its difficulty for this method and chance is below the
    seed's accuracy, as quantiles of a normal distribution. Methods then agree with each other about
    as much as trained encoders do.
    """
    rng, batch, yes = np.random.default_rng(5), 50, 0
    methods = len(accuracies)
    for _ in range(SIMULATIONS // batch):
        shared = rng.standard_normal((batch, 1, 1, examples), dtype=np.float32)
        own = rng.standard_normal((batch, methods, 1, examples), dtype=np.float32)
        chance = rng.standard_normal((batch, methods, seeds, examples), dtype=np.float32)
        drawn = np.asarray(accuracies)[:, None] + np.asarray(spreads)[
            :, None
        ] * rng.standard_normal((batch, methods, seeds))
        difficulty = np.sqrt(0.45) * shared + np.sqrt(0.2) * own + np.sqrt(0.35) * chance
        yes += int(decide(difficulty < ndtri(np.clip(drawn, 0.01, 0.99))[..., None]).sum())
    return yes / SIMULATIONS


def compared(answers: Any) -> Differences:
    return differences(
        [sample_of(answers[:, method].astype(np.float64)) for method in range(answers.shape[1])]
    )


def any_alarm(answers: Any) -> Any:
    return (compared(answers).p < 0.05).any(axis=-1)


def first_two_separate(answers: Any) -> Any:
    return compared(answers).p[:, 0] < 0.05


@pytest.mark.parametrize(
    ("methods", "seeds", "examples"),
    [(8, 3, 500), (8, 3, 1000), (8, 3, 2000), (8, 2, 1000), (2, 3, 1000)],
)
def test_false_alarm_rate_over_equal_methods(methods: int, seeds: int, examples: int) -> None:
    rate = simulate([0.8] * methods, [SEED_SPREAD] * methods, seeds, any_alarm, examples)
    print(
        f"\n{methods} equal methods, {seeds} seeds, {examples} examples: false alarms in {rate:.1%}"
    )
    assert rate <= 0.064


@pytest.mark.parametrize(
    "spreads", [[0.005, 0.01, 0.01, 0.01, 0.02, 0.02, 0.03, 0.05], [0.005] * 7 + [0.05]]
)
def test_false_alarm_rate_with_unequal_variances_between_seeds(
    spreads: list[float],
) -> None:
    rate = simulate([0.8] * 8, spreads, 3, any_alarm)
    print(
        f"\neight equal methods with standard deviations {', '.join(map(str, spreads))}: "
        f"false alarms in {rate:.1%}"
    )
    assert rate <= 0.08


def test_pooled_mcnemar_raises_false_alarms_and_our_test_does_not() -> None:
    """McNemar's test treats the answers of three seeds as independent: many false alarms."""

    def mcnemar(answers: Any) -> Any:
        first, second = (
            answers[:, 0].reshape(len(answers), -1),
            answers[:, 1].reshape(len(answers), -1),
        )
        won, lost = (first & ~second).sum(-1), (second & ~first).sum(-1)
        return stats.chi2.sf((np.abs(won - lost) - 1.0) ** 2 / (won + lost), 1) < 0.05

    assert simulate([0.8] * 2, [SEED_SPREAD] * 2, 3, mcnemar) > 0.3
    assert simulate([0.8] * 2, [SEED_SPREAD] * 2, 3, any_alarm) <= 0.064


@pytest.mark.parametrize(
    ("methods", "points", "seeds"), [(2, 8, 3), (2, 5, 7), (8, 12, 3), (8, 5, 15)]
)
def test_power_to_separate_two_methods(methods: int, points: int, seeds: int) -> None:
    accuracies = [0.8 + points / 200, 0.8 - points / 200] + [0.8] * (methods - 2)
    power = simulate(accuracies, [SEED_SPREAD] * methods, seeds, first_two_separate)
    print(
        f"\n{points} points between two of {methods} methods, {seeds} seeds: found in {power:.1%}"
    )
    assert power >= 0.8


def test_interval_covers_the_true_accuracy() -> None:
    """The interval contains the true accuracy for new seeds and new test examples."""

    def holds(answers: Any) -> Any:
        found = []
        for one in answers.astype(np.float64):
            samples = [sample_of(scores) for scores in one]
            low, high = interval(samples[0], common_spread(samples))
            found.append(low <= 0.8 <= high)
        return np.asarray(found)

    assert simulate([0.8] * 8, [SEED_SPREAD] * 8, 3, holds, examples=500) >= 0.94


def test_differences_match_the_paired_t_test_without_variance_between_seeds() -> None:
    """If all seeds give the same answers, only examples vary, as in scipy's paired test."""
    rng = np.random.default_rng(0)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.7
    samples = [sample_of(np.stack([answers] * 3).astype(np.float64)) for answers in (first, second)]
    found = differences(samples)
    reference = stats.ttest_rel(first.astype(float), second.astype(float))
    assert found.p[0] == pytest.approx(reference.pvalue, rel=1e-6)
    low, high = reference.confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == (pytest.approx(low), pytest.approx(high))


def test_differences_match_students_t_test_with_many_examples() -> None:
    """With constant scores per seed, examples have no variance and the seeds' means decide."""
    rng = np.random.default_rng(1)
    means = rng.normal(0.5, 0.02, (2, 4)).round(4)
    scores = np.stack([[[mean] * 4000 for mean in method] for method in means])
    found = differences([sample_of(method) for method in scores])
    assert found.p[0] <= 1
    # Equal variances: with two methods, own and pooled variance are the same.
    pooled = stats.ttest_ind(means[0], means[1])
    assert found.p[0] == pytest.approx(pooled.pvalue, rel=1e-6)


def test_interval_of_one_seed_matches_wilson() -> None:
    answers = np.repeat([1.0, 0.0], [430, 70])
    low, high = interval(sample_of(answers[None]), None)
    reference = stats.binomtest(430, 500).proportion_ci(method="wilson")
    assert (low, high) == (
        pytest.approx(reference.low, abs=2e-4),
        pytest.approx(reference.high, abs=2e-4),
    )


def test_interval_of_a_perfect_method_is_not_empty() -> None:
    low, high = interval(sample_of(np.ones((1, 100))), None)
    assert (low, high) == (
        pytest.approx(stats.binomtest(100, 100).proportion_ci(method="wilson").low),
        1.0,
    )


def test_interval_of_a_perfect_method_uses_the_pooled_variance() -> None:
    noisy = sample_of(np.stack([np.repeat([1.0, 0.0], [right, 50 - right]) for right in (27, 32)]))
    low, high = interval(
        sample_of(np.ones((2, 50))), common_spread([noisy, sample_of(np.ones((2, 50)))])
    )
    assert 0 < low < 0.95 < high == 1


@given(arrays.arrays(np.bool_, st.tuples(st.just(2), st.integers(2, 4), st.integers(2, 12))))
def test_any_answers_have_intervals_and_differences(answers: Any) -> None:
    samples = [sample_of(method.astype(np.float64)) for method in answers]
    found = differences(samples)
    assert 0 <= found.p[0] <= 1
    assert found.low[0] <= found.difference[0] <= found.high[0]
    for sample in samples:
        for spread in (None, common_spread(samples)):
            low, high = interval(sample, spread)
            assert 0 <= low <= sample.mean + 1e-9
            assert sample.mean - 1e-9 <= high <= 1


def test_differences_of_equal_and_opposite_answers() -> None:
    same = sample_of(np.ones((2, 9)))
    assert differences([same, same]).p[0] == 1
    assert differences([same, sample_of(np.zeros((2, 9)))]).p[0] == 0


def test_differences_reject_one_seed() -> None:
    one, two = sample_of(np.ones((1, 9))), sample_of(np.ones((2, 9)))
    with pytest.raises(ValueError, match="one seed shows no spread"):
        differences([one, two])
    assert differences([two]).pairs == differences([]).pairs == ()


labelled = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        *[arrays.arrays(np.int64, 40, elements=st.integers(0, classes - 1)) for _ in range(2)],
    )
)


@given(labelled)
def test_scores_average_to_scikit_learn_metrics(case: Any) -> None:
    classes, predicted, labels = case
    expected = f1_score(labels, predicted, labels=range(classes), average="macro", zero_division=0)
    assert macro_f1_scores(predicted, labels, classes).mean() == pytest.approx(expected)
    assert correct(predicted, labels).mean() == pytest.approx((predicted == labels).mean())


def test_variance_of_f1_scores_matches_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 600)
    predicted = np.where(rng.random(600) < 0.7, labels, rng.integers(0, 3, 600))
    drawn = rng.integers(0, 600, (400, 600))
    bootstrap = np.std([f1_score(labels[rows], predicted[rows], average="macro") for rows in drawn])
    assert macro_f1_scores(predicted, labels, 3).std() / 600**0.5 == pytest.approx(
        bootstrap, rel=0.15
    )


def test_holm_matches_hand_calculation() -> None:
    assert holm(np.asarray([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(arrays.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_keeps_the_order_and_is_between_raw_and_bonferroni(p: Any) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_letters_match_hand_calculation() -> None:
    assert letters(4, []) == ["a", "a", "a", "a"]
    assert letters(3, [(0, 2)]) == ["a", "ab", "b"]
    assert letters(3, list(combinations(range(3), 2))) == ["a", "b", "c"]
    assert letters(0, []) == []


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just(n), st.sets(st.sampled_from([*combinations(range(n), 2), (0, 0)]))
        )
    )
)
def test_letters_are_shared_unless_a_pair_is_separable(case: Any) -> None:
    count, separable = case[0], sorted(case[1] - {(0, 0)})
    given_letters = letters(count, separable)
    assert all(given_letters)
    for first, second in combinations(range(count), 2):
        assert bool(set(given_letters[first]) & set(given_letters[second])) == (
            (first, second) not in separable
        )


def test_pareto_front_matches_hand_calculation() -> None:
    nan = float("nan")
    assert pareto(np.asarray([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [0.0, nan]])) == [
        True,
        True,
        False,
        None,
    ]
    assert pareto(np.asarray([[1.0, 1.0], [1.0, 1.0]])) == [True, True]


@given(arrays.arrays(np.float64, (6, 3), elements=st.integers(0, 3).map(float)))
def test_pareto_dominated_rows_are_dominated_by_a_row_on_the_front(costs: Any) -> None:
    front = pareto(costs)
    assert any(front)
    for row, on_front in zip(costs, front, strict=True):
        dominated = any(
            (other <= row).all() and (other < row).any()
            for other, on in zip(costs, front, strict=True)
            if on
        )
        assert dominated != on_front
