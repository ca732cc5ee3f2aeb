"""Closed forms of parameter counts accept every real count and refuse impossible ones."""

from __future__ import annotations

import pytest

from builders import PUBLISHED_SIZES
from peft_methods.analysis.checks.parameter_counts import (
    known_models,
    models_named,
    models_of_size,
    verdict,
)
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.methods.scaling.ia3 import IA3
from peft_methods.utils.units import parse


def count(text: str) -> RoundedCount:
    quantity = parse(text, "count")
    assert quantity is not None
    return RoundedCount(text, quantity.value, quantity.low, quantity.high)


def test_known_models_have_the_size_that_transformers_builds() -> None:
    for name, (_, classifier) in PUBLISHED_SIZES.items():
        two_classes = known_models()[name][0]
        assert two_classes.encoder_parameters + two_classes.head_parameters == classifier


def test_models_named_and_models_of_size_find_known_models() -> None:
    assert {shape.model_type for shape in models_named("FacebookAI/roberta-base")} == {"roberta"}
    assert (
        models_named("bert-base")
        == known_models()["bert-base-uncased"] + known_models()["bert-base-cased"]
    )
    assert models_named("bert") == models_named("gpt2") == ()
    assert [shape.labels for shape in models_of_size(count("124,647,170"))] == [2]
    assert {shape.model_type for shape in models_of_size(count("110M"))} == {"bert", "mpnet"}


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("full", "124,647,170", "fits"), ("full", "124.6M", "fits"), ("full", "125M", "fits"),
        ("full", "110M", "off"), ("full", "125,237,762", "fits"), ("lora", "1,181,954", "fits"),
        ("lora", "294,912", "fits"), ("lora", "0.3M", "fits"), ("lora", "1.48M", "fits"),
        ("lora", "1,181,956", "off"), ("qlora", "296,450", "head missing"),
        ("qlora", "592,130", "nothing"), ("ia3", "656,642", "fits"), ("ia3", "647,426", "fits"),
        ("ia3", "675K", "fits"), ("ia3", "1.30M", "off"), ("ia3", "1,538", "off"),
        ("adapter", "1,486,658", "fits"), ("adapter", "2,381,186", "fits"),
        ("adapter", "5", "off"), ("bitfit", "694,274", "fits"), ("head_only", "592,130", "fits"),
        ("head_only", "1,181,954", "off"), ("adapter_fusion", "3", None),
    ],
)  # fmt: skip
def test_verdict_on_roberta_base_fits_possible_counts_only(
    method: str, text: str, expected: str | None
) -> None:
    assert verdict(method, count(text), models_named("roberta-base")) == expected


def test_the_two_known_forms_of_ia3_are_among_its_target_sets() -> None:
    forms = {form + 592_130 for form in IA3.possible_counts(models_named("roberta-base")[0])}
    assert {656_642, 647_426} <= forms
    assert max(forms) == 702_722
