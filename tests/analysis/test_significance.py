"""Statistics compared with references and by property."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import f1_score, precision_score, recall_score

from peft_methods.analysis.groups import letters
from peft_methods.analysis.pareto import pareto
from peft_methods.analysis.samples import sample_of
from peft_methods.analysis.seed_variance import common_variance
from peft_methods.analysis.significance import differences, exact_p, holm, interval
from peft_methods.tasks import set_scores
from peft_methods.tasks.class_scores import SCORES, correct, macro_f1_scores


def test_differences_match_the_paired_t_test_without_variance_between_seeds() -> None:
    """If all seeds give the same answers, only examples vary, as in scipy's paired test."""
    rng = np.random.default_rng(0)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.7
    samples = [sample_of(np.stack([answers] * 3).astype(np.float64)) for answers in (first, second)]
    found = differences(samples)
    reference = stats.ttest_rel(first.astype(float), second.astype(float))
    # The degrees of freedom allow for the kurtosis of the differences: a few fewer than 399.
    assert found.p[0] == pytest.approx(reference.pvalue * 0.05 / 0.045, rel=0.05)
    low, high = reference.confidence_interval(0.96)
    assert (found.low[0], found.high[0]) == (
        pytest.approx(low, rel=5e-3),
        pytest.approx(high, rel=5e-3),
    )


def test_differences_match_students_t_test_with_many_examples() -> None:
    """With constant scores per seed, examples have no variance and the seeds' means decide."""
    rng = np.random.default_rng(1)
    means = rng.normal(0.5, 0.02, (2, 4)).round(4)
    scores = np.stack([[[mean] * 400_000 for mean in method] for method in means])
    found = differences([sample_of(method) for method in scores])
    # Two methods with the same number of seeds: Welch's statistic is Student's, with fewer degrees
    # of freedom. It is significant below 4.5 %.
    welch = stats.ttest_ind(means[0], means[1], equal_var=False)
    assert found.p[0] == pytest.approx(welch.pvalue * 0.05 / 0.045, rel=1e-3)


def test_interval_of_one_seed_matches_wilson() -> None:
    answers = np.repeat([1.0, 0.0], [430, 70])
    low, high = interval(sample_of(answers[None]), None)
    reference = stats.binomtest(430, 500).proportion_ci(method="wilson")
    assert (low, high) == (
        pytest.approx(reference.low, abs=2e-4),
        pytest.approx(reference.high, abs=2e-4),
    )


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_of_all_or_no_right_answers_is_near_wilsons(right: bool, seeds: int) -> None:
    """Other methods spread over seeds as usual. More rows make the interval narrower."""
    rng, widths = np.random.default_rng(3), []
    for rows in (20, 64, 300, 1500, 10_000):
        perfect = sample_of(np.full((seeds, rows), float(right)))
        others = [
            sample_of((rng.random((3, rows)) < rng.normal(0.8, 0.023, (3, 1))).astype(np.float64))
            for _ in range(3)
        ]
        common = common_variance([perfect, *others]) if seeds > 1 else None
        low, high = interval(perfect, common)
        wilson = stats.binomtest(rows * right, rows).proportion_ci(method="wilson")
        assert (low == 0) != right
        assert (high == pytest.approx(1)) == right
        assert high - low == pytest.approx(wilson.high - wilson.low, rel=0.3)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("rows", [2, 3, 5, 9])
def test_few_examples_give_no_smaller_p_than_the_exact_test(rows: int) -> None:
    right, wrong = sample_of(np.ones((3, rows))), sample_of(np.zeros((3, rows)))
    found = differences([right, wrong])
    exact = stats.binomtest(rows, rows).pvalue
    assert found.p[0] >= exact * (1 - 1e-9)
    assert found.low[0] < 1 <= found.high[0]
    reference = stats.permutation_test(
        (np.ones(rows),), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert exact_p(np.ones(rows)) == pytest.approx(reference.pvalue)


def test_exact_p_matches_all_signs() -> None:
    values = np.asarray([0.5, 0.0, -1.0, 1.0, 1 / 3, 1.0, 0.0])
    reference = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert exact_p(values) == pytest.approx(reference.pvalue)
    assert exact_p(np.zeros(4)) == 1


@given(arrays.arrays(np.bool_, st.tuples(st.just(2), st.integers(2, 4), st.integers(2, 12))))
def test_any_answers_have_intervals_and_differences(answers: Any) -> None:
    samples = [sample_of(method.astype(np.float64)) for method in answers]
    found = differences(samples)
    assert 0 <= found.p[0] <= 1
    assert found.low[0] <= found.difference[0] <= found.high[0]
    for sample in samples:
        for spread in (None, common_variance(samples)):
            low, high = interval(sample, spread)
            assert 0 <= low <= sample.mean + 1e-9
            assert sample.mean - 1e-9 <= high <= 1


def test_differences_of_equal_and_opposite_answers() -> None:
    same = sample_of(np.ones((2, 9)))
    assert differences([same, same]).p[0] == 1
    assert differences([same, sample_of(np.zeros((2, 9)))]).p[0] == pytest.approx(2 / 2**9)


def test_probability_that_a_new_seed_wins_is_that_with_which_it_does() -> None:
    """Scores are constant per seed, so only seeds vary. Nothing is known of the means before."""
    rng, promised, kept = np.random.default_rng(4), [], []
    for _ in range(600):
        centres = 0.5 + 0.1 * rng.standard_normal(4)
        means = centres[:, None] + 0.02 * rng.standard_normal((4, 4))  # the last is the new seed
        found = differences([sample_of(np.repeat(one[:3, None], 50, axis=1)) for one in means])
        promised += [float(found.wins[0])]
        kept += [means[0, 3] > means[1, 3]]
    likely = np.asarray(promised) > 0.5
    for group in (likely, ~likely):
        expected, came = np.asarray(promised)[group].mean(), np.asarray(kept)[group].mean()
        assert came == pytest.approx(expected, abs=0.06)


def test_a_new_seed_wins_surely_or_half_the_time_where_nothing_varies() -> None:
    same, less = sample_of(np.ones((2, 9))), sample_of(np.zeros((2, 9)))
    assert list(differences([same, same, less]).wins) == [0.5, 1.0, 1.0]


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


@given(labelled)
def test_variance_of_macro_scores_is_that_of_leaving_one_row_out(case: Any) -> None:
    classes, predicted, labels = case
    averages = {
        "macro_f1": f1_score,
        "macro_precision": precision_score,
        "macro_recall": recall_score,
    }
    for name, metric in averages.items():
        without = np.asarray([
            metric(
                np.delete(labels, row), np.delete(predicted, row), labels=range(classes),
                average="macro", zero_division=0,
            )
            for row in range(10)
        ])  # fmt: skip
        scores = SCORES[name](predicted, labels, classes)
        assert scores[1:10] - scores[0] == pytest.approx(39 * (without[0] - without[1:]), abs=1e-9)


def test_a_label_that_one_row_has_is_uncertain() -> None:
    """Its F1 is 1, but that of another test set may be 0."""
    true = np.zeros((50, 2))
    true[:25, 0] = true[0, 1] = 1
    scores = set_scores.macro_f1_scores(true, true)
    assert scores.mean() == pytest.approx(1)
    assert scores.std() / 50**0.5 > 0.4


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


def test_letters_of_intransitive_comparisons_are_bounded_and_still_exact() -> None:
    """Here are 3 ** 13 largest groups: each method differs from two others and from no more."""
    count = 40
    separable = [(i, j) for i, j in combinations(range(count), 2) if i // 3 == j // 3]
    shown = [set(re.findall(r"[a-z]\d*", one)) for one in letters(count, separable)]
    assert len(set.union(*shown)) <= 40
    for pair in combinations(range(count), 2):
        assert bool(shown[pair[0]] & shown[pair[1]]) == (pair not in separable)


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
