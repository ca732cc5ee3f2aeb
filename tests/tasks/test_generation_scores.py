"""Scores of generated texts: answers, their numbers, and the means that reports show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu, corpus_chrf

from peft_methods.recipes.loading import load_recipe
from peft_methods.tasks.generation_scores import (
    SCORES,
    answer_in,
    bleu,
    exact_match,
    generation_facts,
    normalised,
)
from peft_methods.tasks.lm_predictions import Generated, LanguagePredictions
from peft_methods.tasks.registry import TASKS

TASK = TASKS["causal_lm"]
NUMBER = load_recipe("gsm8k_sft").data.answer_pattern or ""
WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "."]), max_size=12
)
TEXTS = WORDS.map(" ".join)


def generated(texts: list[str], references: list[tuple[str, ...]], pattern: str = "") -> Generated:
    rows = len(texts)
    return Generated(
        tuple(texts), tuple(references), (), np.arange(rows), np.ones(rows, bool), pattern
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("1000.0", "1000"),
        ("$1,000.", "1000"),
        ("+5", "5"),
        ("-0.50", "-.5"),
        ("-0", "0"),
        ("007", "7"),
        ("  a   b ", "a b"),
    ],
)
def test_spellings_of_the_same_answer_are_equal(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1,00", "100"), ("-5", "5"), ("1.5", "15"), ("1e3", "1000"), ("A", "a")]
)
def test_other_answers_differ(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.integers(-(10**40), 10**40), st.integers(0, 3))
def test_numbers_of_any_length_are_compared_by_value(number: int, zeros: int) -> None:
    assert normalised(f"{number:,}") == normalised(str(number)) == str(number)
    assert normalised(f"{number}.{'0' * zeros}") == str(number)
    assert normalised(str(number + 1)) != str(number)


@given(st.text())
def test_any_text_has_a_spelling_that_is_its_own(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3+4=7\n#### 7", "7"),
        ("#### 1,234 dollars", "1,234"),
        ("#### $18.00.", "18.00"),
        ("#### 5\nQuestion: more\n#### 6", "6"),
        ("####-3", "-3"),
        ("the answer is 7", None),
    ],
)
def test_the_recipes_pattern_finds_the_number(text: str, answer: str | None) -> None:
    assert answer_in(text, NUMBER) == answer


def test_exact_match_compares_answers_and_any_reference_counts() -> None:
    made = generated(
        ["a\n#### 1,000", "#### 2", "nothing", "#### 4"],
        [("#### 1000",), ("x #### 3", "y #### 2.0"), ("#### 5",), ("4",)],
        NUMBER,
    )
    assert exact_match(made).tolist() == [1, 1, 0, 1]
    assert generation_facts(made)["answered"] == 0.75


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=8))
def test_bleu_of_the_rows_averages_to_that_of_the_corpus(rows: list[tuple[str, list[str]]]) -> None:
    made = generated([text for text, _ in rows], [tuple(refs) for _, refs in rows])
    most = max(len(refs) for _, refs in rows)
    streams = [[refs[i] if i < len(refs) else None for _, refs in rows] for i in range(most)]
    expected = corpus_bleu([text for text, _ in rows], streams).score / 100
    assert bleu(made).mean() == pytest.approx(expected, abs=1e-12)


def test_scores_are_shares_and_perfect_texts_have_the_highest() -> None:
    texts = ["the cat sat on the mat today", "a dog ran to the park and back"]
    made = generated(texts, [(text,) for text in texts])
    for score in SCORES.values():
        assert score(made).mean() == pytest.approx(1.0)
    assert corpus_chrf(texts, [texts]).score == pytest.approx(100)


def test_influences_average_to_the_metric_and_rows_weigh_as_many_tokens_as_they_have() -> None:
    found = LanguagePredictions(
        np.asarray([2.0, 9.0, 0.0]), np.asarray([1, 9, 0]), np.asarray([1, 2, 3])
    )
    assert found.loss == pytest.approx(1.1)
    assert TASK.example_scores(found, "token_loss").tolist() == pytest.approx([1.37, 0.83, 1.1])
    for metric in ("token_loss", "perplexity"):
        mean = TASK.example_scores(found, metric).mean()
        assert mean == pytest.approx(TASK.scores(found)[metric])
    assert set(TASK.scores(found)) == {"token_loss", "perplexity"}


@pytest.mark.parametrize("metric", ["token_loss", "perplexity"])
def test_the_spread_of_example_scores_is_that_of_a_bootstrap(metric: str) -> None:
    """Rows differ in length, which does not make the loss of a token uncertain."""
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 200, 400)
    totals = counts * (1.2 + 0.3 * rng.standard_normal(400))
    whole = LanguagePredictions(totals, counts, np.arange(400))
    values = [
        TASK.scores(LanguagePredictions(totals[rows], counts[rows], rows))[metric]
        for rows in rng.integers(0, 400, (400, 400))
    ]
    error = TASK.example_scores(whole, metric).std(ddof=1) / np.sqrt(400)
    assert error == pytest.approx(np.std(values, ddof=1), rel=0.15)


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=3)), max_size=5))
def test_any_texts_are_stored_and_read_back(rows: list[tuple[str, list[str]]]) -> None:
    made = generated([text for text, _ in rows], [tuple(refs) for _, refs in rows], "(.)")
    count = len(rows)
    found = LanguagePredictions(np.ones(count), np.ones(count, int), np.arange(count), made)
    arrays = found.arrays()
    again = LanguagePredictions.restore(lambda name: arrays[name]).generated
    assert again is not None
    assert (again.texts, again.references, again.pattern) == (made.texts, made.references, "(.)")


def test_arrays_that_do_not_fit_are_refused() -> None:
    made = generated(["a", "b"], [("a",), ("b",)])
    arrays = dict(LanguagePredictions(np.ones(2), np.ones(2, int), np.arange(2), made).arrays())
    for name, wrong in (("counts", np.ones(3, int)), ("generated_ends", np.asarray([1, 3]))):
        with pytest.raises(ValueError, match=r"differ|fit"):
            LanguagePredictions.restore(lambda one, n=name, w=wrong: w if one == n else arrays[one])
