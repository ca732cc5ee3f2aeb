"""Rules fire when they should and only then: near misses of the planted faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import make_record
from peft_methods.analysis import checks
from peft_methods.analysis.checks.names import device_name, precision_name, version_name
from peft_methods.analysis.checks.row import ResultRow, row_of
from peft_methods.analysis.external.audit import check_table
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.recipes.loading import load_recipe, shipped_recipes
from peft_methods.recipes.schema import Expect
from peft_methods.tasks.registry import TASKS


def fires(rule: str, *rows: ResultRow) -> list[str]:
    """Return the evidence of a rule on a table's rows."""
    return [one.evidence for one in check_table(rows) if one.rule == rule]


def lora(**values: Any) -> ResultRow:
    return ResultRow("LoRA", "lora", **values)


@pytest.mark.parametrize(
    ("losses", "accuracies", "more"),
    [
        ((0.4, 0.4002, 0.4001), (0.8, 0.8, 0.8), {}),
        ((0.4, 0.4, 0.4), (), {}),
        ((0.693, 0.693), (0.5, 0.5), {}),
        ((0.6931, 0.6925), (0.5, 0.5), {"class_counts": {"validation": (20, 20)}}),
    ],
)
def test_v208_reports_losses_that_show_no_training(
    losses: tuple[float, ...], accuracies: tuple[float, ...], more: dict[str, Any]
) -> None:
    row = lora(validation_losses=losses, validation_accuracies=accuracies, **more)
    assert len(fires("V208", row)) == 1


@pytest.mark.parametrize(
    ("losses", "accuracies", "more"),
    [
        ((0.17, 0.17, 0.17), (0.92, 0.93, 0.94), {}),  # rounded, while accuracy rises
        ((0.17, 0.17, 0.17), (), {"loss_rounding": 0.005}),  # they may differ by 0.01
        ((0.17, 0.17, 0.17), (0.9, 0.9, 0.9), {"loss_rounding": 0.005, "rounding": 0.05}),
        ((0.3121, 0.3118), (0.87, 0.87), {"class_counts": {"validation": (20, 20)}}),
        ((0.3121, 0.3118), (), {}),  # two epochs of a run that learnt in the first
        ((0.0009, 0.0005, 0.0003), (1.0, 1.0, 1.0), {}),  # nothing is left to learn
    ],
)
def test_v208_accepts_losses_of_sound_training(
    losses: tuple[float, ...], accuracies: tuple[float, ...], more: dict[str, Any]
) -> None:
    row = lora(validation_losses=losses, validation_accuracies=accuracies, **more)
    assert fires("V208", row) == []


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ((0.693, 0.685, 1.9, 2.4), "0.6930 in the first epoch, 0.6850 in the best, 2.4000 in"),
        ((0.69, 0.2, 0.66), "0.6900 in the first epoch, 0.2000 in the best, 0.6600 in the last"),
        ((0.693, 0.692, 0.693), "0.6930 in the first epoch, 0.6930 in the last"),
    ],
)
def test_v204_reports_losses_that_do_not_fall_or_rise_again(
    losses: tuple[float, ...], says: str
) -> None:
    (evidence,) = fires("V204", lora(train_losses=losses))
    assert says in evidence


@pytest.mark.parametrize(
    "losses", [(0.69, 0.4, 0.2), (0.69, 0.3, 0.36), (0.002, 0.002), (0.3, 0.05, 0.09), (0.7,)]
)
def test_v204_accepts_losses_that_fall(losses: tuple[float, ...]) -> None:
    assert fires("V204", lora(train_losses=losses)) == []


def test_v204_reports_divergence_of_head_only_too_but_no_flat_loss() -> None:
    for losses, count in (((0.69, 0.69), 0), ((0.69, 1.9), 1)):
        row = ResultRow("Head only", "head_only", train_losses=losses)
        assert len(fires("V204", row)) == count


FULL = ResultRow("Full", "full", learning_rate=2e-5)


@pytest.mark.parametrize(
    ("ratio", "evidence"),
    [
        (0.5, "learning rate 1e-05, 0.5 times that of full fine-tuning"),
        (1.0, "learning rate 2e-05, that of full fine-tuning"),
        (1.2, "learning rate 2.4e-05, 1.2 times that of full fine-tuning"),
        (1.5, "learning rate 3e-05, 1.5 times that of full fine-tuning"),
    ],
)
def test_v504_reports_rates_near_that_of_full_fine_tuning(ratio: float, evidence: str) -> None:
    assert fires("V504", FULL, lora(learning_rate=ratio * 2e-5)) == [evidence]


@pytest.mark.parametrize("ratio", [2.5, 5, 10, 500])
def test_v504_accepts_published_rates(ratio: float) -> None:
    assert fires("V504", FULL, lora(learning_rate=ratio * 2e-5)) == []


def test_v504_accepts_rates_of_shipped_recipes_and_tuned_ones() -> None:
    for name in shipped_recipes():
        rows = [
            ResultRow(method, method, learning_rate=settings["learning_rate"])
            for method, settings in load_recipe(name).methods.items()
            if (name, method) != ("trec_bert", "adapter_fusion")  # its rate is full's
        ]
        assert fires("V504", *rows) == [], name
    tuned = lora(learning_rate=2e-5, rates=(1e-5, 2e-5, 4e-5))
    assert fires("V504", FULL, tuned) == []


SAME = [
    ("bf16", "bfloat16", "BF16", "torch.bfloat16", "bf16-mixed", "bf16 (mixed)", "bf16 autocast"),
    ("fp16", "float16", "half", "torch.float16", "16-mixed", "f16", "16", "fp16 amp", "16-bit"),
    ("fp32", "float32", "32", "32-true", "full precision", "single", "torch.float32", "32 bits"),
    ("tf32", "TF32", "TensorFloat-32", "tensorfloat32"),
    ("fp64", "float64", "double", "64-bit"),
]


@pytest.mark.parametrize("names", SAME)
def test_v505_takes_names_of_one_precision_as_equal(names: tuple[str, ...]) -> None:
    assert {precision_name(name) for name in names} == {names[0]}
    rows = [ResultRow(name, "lora", precision=name) for name in names]
    assert fires("V505", *rows) == []


def test_v505_reports_other_precisions_devices_and_versions() -> None:
    named = {precision_name(names[0]) for names in SAME} | {precision_name("pure bf16")}
    assert len(named) == 6
    one = lora(precision="bfloat16", device="NVIDIA A100-SXM4-80GB", versions={"torch": "2.6"})
    same = ResultRow(
        "IA3", "ia3", precision="bf16", device="A100 SXM4 80 GB", versions={"torch": "v2.6.0"}
    )
    other = ResultRow(
        "Full", "full", precision="half", device="NVIDIA H100", versions={"torch": "2.6.1"}
    )
    assert fires("V505", one, same) == []
    assert fires("V505", one, same, other) == [
        "device h100, the others' a100 sxm4 80gb",
        "precision fp16, the others' bf16",
        "torch 2.6.1, the others' 2.6",
    ]
    assert precision_name("NF4 + bfloat16", quantized=True) == "bf16"
    assert (device_name(None), version_name(""), version_name("2.10")) == (None, None, "2.10")


def found_in(rule: str, **changes: Any) -> list[str]:
    record = make_record(**changes)
    return [one.evidence for one in checks.run_checks([record]) if one.rule == rule]


def test_v306_checks_the_training_accuracy_of_a_record() -> None:
    epochs = tuple(
        {"epoch": epoch, "train_loss": 0.5 / epoch, "train_accuracy": accuracy}
        for epoch, accuracy in ((1, 0.9), (2, 0.98))
    )
    (evidence,) = found_in("V306", epochs=epochs, best_epoch=2)
    assert evidence == "training accuracy 0.980, test accuracy 0.800"
    assert found_in("V306", epochs=epochs, best_epoch=1) == []  # ten points, and chance
    assert found_in("V306", epochs=epochs) == []  # the chosen epoch is not known
    assert row_of(make_record(epochs=epochs, best_epoch=2)).train_accuracy == 0.98


def confused(*rows: tuple[int, int], accuracy: float, majority: float) -> list[str]:
    metrics = {**make_record().metrics, "accuracy": accuracy}
    counts = {"train": [200, 200], "test": [sum(row) for row in rows]}
    data = {**make_record().data, "majority": majority, "class_counts": counts}
    quality = {"confusion": [list(row) for row in rows]}
    return found_in("V301", metrics=metrics, data=data, quality=quality)


def test_v301_reports_a_constant_prediction_of_any_class() -> None:
    (evidence,) = confused((0, 30), (0, 70), accuracy=0.7, majority=0.3)
    assert evidence == "all test rows were predicted as one class, accuracy 0.700"
    assert confused((2, 28), (0, 70), accuracy=0.72, majority=0.3) == []


@pytest.mark.parametrize(
    ("loss", "exact_match", "margin", "fired"),
    [
        (1.5, 0.2, 0.0, []),
        (1.5, 0.0, 0.0, ["V604"]),  # it learnt, but solves no more problems
        (1.5, 0.0, 0.1, ["V301"]),
        (2.0, 0.0, 0.0, ["V301"]),
        (2.5, 0.2, 0.0, []),  # a higher loss, but better answers
    ],
)
def test_a_language_model_fails_only_if_neither_loss_nor_score_improved(
    loss: float, exact_match: float, margin: float, fired: list[str]
) -> None:
    sound = make_record()
    recipe = sound.spec.recipe
    data = replace(recipe.data, select_by="token_loss", rank_by="exact_match")
    own = replace(recipe, task="causal_lm", data=data, expect=Expect(margin))
    record = make_record(
        spec=replace(sound.spec, recipe=own),
        data={**sound.data, "trivial_baseline": {"token_loss": 2.0, "exact_match": 0.0}},
        metrics={**sound.metrics, "token_loss": loss, "exact_match": exact_match},
    )
    found = [finding.rule for finding in checks.run_checks([record])]
    assert [rule for rule in found if rule in ("V301", "V604")] == fired


@pytest.mark.parametrize(
    ("train", "test", "majority"),
    [
        ((300, 100), (100, 300), 0.25),  # the most frequent class of train, predicted on test
        ((100, 300), (100, 300), 0.75),
        ((200, 200), (150, 350), 0.7),  # of equally frequent classes the one that scores best
    ],
)
def test_majority_is_the_score_of_a_constant_prediction_on_test(
    train: tuple[int, int], test: tuple[int, int], majority: float
) -> None:
    splits = {
        name: LabelledTexts(["x"] * sum(counts), [0] * counts[0] + [1] * counts[1])
        for name, counts in {"train": train, "test": test}.items()
    }
    found = TASKS["text_classification"].trivial_baseline(splits, ("a", "b"))
    assert found["accuracy"] == majority


@pytest.mark.parametrize(
    ("less", "count"),
    [
        (1e6, 0),  # of a tiny model: resident memory does not repeat so exactly
        (30e6, 0),
        (60e6, 1),
    ],
)
def test_v506_takes_noise_of_resident_memory_for_no_difference(less: float, count: int) -> None:
    values = {"total_parameters": 24_000}
    rows = (
        lora(maximum_memory=100e6, **values),
        ResultRow("QLoRA", "qlora", maximum_memory=100e6 - less, **values),
    )
    assert len(fires("V506", *rows)) == count


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("8xA100", "8 x a100"),
        ("8 × A100", "8 x a100"),
        ("A100 (x8)", "8 x a100"),
        ("NVIDIA A100-80GBx8", "8 x a100 80gb"),
        ("1x A100", "a100"),
        ("RTX 4090", "rtx 4090"),
        ("Titan X", "titan x"),
        ("CPU x86", "cpu x86"),
    ],
)
def test_one_number_of_devices_has_one_spelling(text: str, name: str) -> None:
    assert device_name(text) == name
