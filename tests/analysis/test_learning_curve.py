"""Which records form a learning curve, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import make_comparison, missing
from curve_builders import RISING, SIZES, make_curve
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.forecast import Forecast, NoForecast
from peft_methods.analysis.learning_curve import curves_of, main_part
from peft_methods.analysis.merged import merge_sections
from peft_methods.analysis.sections import group_records
from peft_methods.api import PrintableComparison


@pytest.fixture(scope="module")
def comparison() -> PrintableComparison:
    return make_curve()


def test_sizes_of_one_recipe_are_one_curve_whose_largest_is_the_main_one(
    comparison: PrintableComparison,
) -> None:
    (curve,) = curves_of(comparison)
    assert (curve.name, curve.sizes) == ("embedded", SIZES)
    assert curve.main.recipe == "embedded-900"
    assert set(curve.methods) == set(RISING)
    assert all(isinstance(one, Forecast) for one in curve.forecasts.values())
    assert curve.differing == ()


def test_each_size_is_a_comparison_of_its_own(comparison: PrintableComparison) -> None:
    (curve,) = curves_of(comparison)
    for point in curve.points:
        alone = replace(
            comparison,
            records=tuple(r for r in comparison.records if r.recipe_name == point.recipe),
        )
        assert alone.rankings[point.recipe] == point.ranking
        for pair in point.separable:
            assert pair.difference > 0
    assert [(pair.first, pair.second) for pair in curve.main.separable] == [
        ("lora", "head_only"),
        ("full", "head_only"),
    ]


def test_recommendations_are_those_of_the_largest_size(comparison: PrintableComparison) -> None:
    assert {answer.recipe for answer in comparison.recommendations()} == {"embedded-900"}
    assert list(main_part(comparison).rankings) == ["embedded-900"]
    plain = make_comparison({"full": ([0.9, 0.91], {})})
    assert main_part(plain) is plain


def test_sizes_with_other_settings_are_not_in_the_curve(comparison: PrintableComparison) -> None:
    records = tuple(
        replace(
            record,
            spec=replace(
                record.spec,
                recipe=replace(
                    record.spec.recipe, budget=replace(record.spec.recipe.budget, epochs=7)
                ),
            ),
        )
        if record.recipe_name == "embedded-100"
        else record
        for record in comparison.records
    )
    (curve,) = curves_of(replace(comparison, records=records))
    assert curve.sizes == SIZES[1:]
    assert set(curve.forecasts.values()) == {NoForecast.FEW_SIZES}
    assert set(main_part(replace(comparison, records=records)).rankings) == {
        *("embedded-100", "embedded-900"),
    }


def test_size_without_results_is_in_no_curve_but_stays_visible(
    comparison: PrintableComparison,
) -> None:
    failed = [
        replace(missing("lora", "failed", "too few rows", seed), spec=record.spec)
        for seed, record in enumerate(comparison.records)
        if record.recipe_name == "embedded-900" and record.method_name == "lora"
    ]
    kept = [record for record in comparison.records if record.recipe_name != "embedded-900"]
    changed = replace(comparison, records=(*kept, *failed))
    (curve,) = curves_of(changed)
    assert curve.sizes == SIZES[:2]
    assert set(main_part(changed).rankings) == {"embedded-300", "embedded-900"}


def test_method_that_is_missing_at_a_size_has_no_forecast(comparison: PrintableComparison) -> None:
    kept = tuple(
        record
        for record in comparison.records
        if (record.recipe_name, record.method_name) != ("embedded-300", "lora")
    )
    (curve,) = curves_of(replace(comparison, records=kept))
    assert curve.forecasts["lora"] is NoForecast.NOT_COMPARED
    assert isinstance(curve.forecasts["full"], Forecast)


def test_hyperparameters_that_differ_between_sizes_are_named(
    comparison: PrintableComparison,
) -> None:
    records = tuple(
        replace(
            record,
            spec=replace(record.spec, method=replace(record.spec.method, learning_rate=0.123)),
        )
        if (record.recipe_name, record.method_name) == ("embedded-300", "lora")
        else record
        for record in comparison.records
    )
    changed = replace(comparison, records=records)
    assert curves_of(changed)[0].differing == ("lora",)
    assert "embedded: LoRA: hyperparameters differ between the sizes." in changed.table()


def test_sections_of_a_curve_come_largest_first_and_merge_to_the_same_curve(
    comparison: PrintableComparison,
) -> None:
    sections = group_records(comparison.records, comparison.predictions)
    assert [one.recipe for one in sections] == ["embedded-900", "embedded-300", "embedded-100"]
    (merged,), (curve,) = curves_of(merge_sections(sections)), curves_of(comparison)
    assert merged.forecasts == curve.forecasts
    assert merged.sizes == curve.sizes


def test_plain_comparison_has_no_curve() -> None:
    assert curves_of(Comparison(())) == []
    assert make_comparison({"full": ([0.9, 0.91], {})}).curves() == []


@pytest.mark.parametrize("status", ["skipped", "failed"])
def test_largest_size_that_failed_is_not_recommended(status: str) -> None:
    comparison = make_curve({"full": RISING["full"]})
    records = tuple(
        missing("full", status, "why", record.seed)
        if record.recipe_name == "embedded-900"
        else record
        for record in comparison.records
    )
    (curve,) = curves_of(replace(comparison, records=records))
    assert curve.main.recipe == "embedded-300"
