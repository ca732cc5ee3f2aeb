"""The sizes of a learning curve, and the recipes that they become."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.api import compare
from peft_methods.recipes.curve import LEAST_ROWS, MOST_SIZES, curve_recipes, parse_sizes
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Expect
from peft_methods.utils.errors import OptionError


@given(st.sets(st.integers(LEAST_ROWS, 10**9), min_size=1, max_size=MOST_SIZES))
def test_ascending_sizes_are_parsed(sizes: set[int]) -> None:
    written = sorted(sizes)
    assert parse_sizes(" , ".join(map(str, written))) == tuple(written)


@given(
    st.text("0123456789,,,- ek.٣", max_size=20)
    | st.lists(st.integers(-5, 50), max_size=25).map(str)
)
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        sizes = parse_sizes(text)
    except OptionError as error:
        assert error.setting == "curve"
        assert len(str(error).splitlines()) == 1
    else:
        assert list(sizes) == sorted(set(sizes))
        assert sizes[0] >= LEAST_ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should be numbers of training rows, such as 100,300,1000"),
        ("100,3oo", "should be numbers of training rows"),
        ("100,,300", "should be numbers of training rows"),
        ("-100,300", "should be numbers of training rows"),
        ("1e3", "should be numbers of training rows"),
        ("٣٠٠", "should be numbers of training rows"),
        ("300,100", "should be in ascending order: 100,300."),
        ("100,300,300", "has 300 twice: 100,300."),
        ("0,100", "has a size of 0 rows; the smallest possible one is 10: 100."),
        ("5", "has a size of 5 rows; the smallest possible one is 10."),
        (",".join(map(str, range(10, 40))), "has 30 sizes; up to 20 are possible"),
    ],
)
def test_bad_sizes_are_refused_with_the_nearest_list(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_sizes(text)
    assert message in str(caught.value)


def test_compare_refuses_a_bad_curve_and_names_its_argument() -> None:
    with pytest.raises(OptionError, match=r"ascending order: 100,300\. Change it with curve=…"):
        compare(curve=[300, 100])
    with pytest.raises(OptionError, match="random weights do not have"):
        compare(curve="100,300", weights="random")


def test_each_size_is_a_recipe_that_differs_in_its_rows_only() -> None:
    recipe = load_recipe("embedded")
    small, own, large = curve_recipes(recipe, (100, 400, 900))
    assert [one.name for one in (small, own, large)] == [
        *("embedded-100", "embedded-400", "embedded-900"),
    ]
    assert {one.curve_of for one in (small, own, large)} == {"embedded"}
    assert small.data == replace(recipe.data, train="all", train_subset=100)
    assert small.expect == Expect(above_majority=False)  # 100 rows may teach nothing
    assert own.expect == large.expect == recipe.expect
    assert "data.train = 400 is not used" in small.notes[-1]
    assert curve_recipes(recipe, ()) == [recipe]


def test_sizes_share_the_prerequisite_runs_of_a_method() -> None:
    from peft_methods.methods.selection import chosen_methods
    from peft_methods.runs.spec import run_specs

    keys = set()
    for size in curve_recipes(load_recipe("embedded"), (100, 900)):
        (fusion,) = chosen_methods(size, ["adapter_fusion"])
        keys.add(tuple(one.key for one in run_specs(size, fusion, "cpu")[0].prerequisites))
    assert len(keys) == 1
