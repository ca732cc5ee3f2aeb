"""Rows of audited tables are grouped by model, data and task, and seeds are merged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audit_faults import row, written

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.external.audit import audit_rows, check_table
from peft_methods.analysis.external.groups import groups_of
from peft_methods.analysis.external.vocabulary import data_in, key_of, model_in, without_words


def names(*rows: object) -> list[tuple[str, list[str]]]:
    return [
        (group.name, [one.name for one in group.methods])
        for group in groups_of(rows)  # type: ignore[arg-type]
    ]


def test_rows_are_grouped_by_the_model_of_a_column() -> None:
    found = names(
        *(
            row(name, model=model)
            for model in ("bert-base-uncased", "org/distilbert-base-uncased")
            for name in ("Full", "LoRA")
        )
    )
    assert found == [
        ("bert-base-uncased", ["Full", "LoRA"]),
        ("org/distilbert-base-uncased", ["Full", "LoRA"]),
    ]


def test_words_of_the_methods_name_are_a_model_or_data() -> None:
    rows = [
        row("DistilBERT Full FT", trainable=66_955_010),
        row("DistilBERT LoRA", trainable=739_586),
        row("BERT-base Full FT", trainable=109_483_778),
        row("BERT-base LoRA", trainable=296_450),
    ]
    rows = [
        one.__class__(one.name, method, trainable=one.trainable)
        for one, method in zip(rows, ["full", "lora"] * 2, strict=True)
    ]
    first, second = groups_of(rows)
    assert {one.model_type for one in first.rows[1].architectures} == {"distilbert"}
    assert {one.model_type for one in second.rows[1].architectures} == {"bert"}
    assert check_table(rows) == []


def test_comparison_rules_hold_within_a_group_only() -> None:
    rows = [
        row(f"{'Full' if full else 'LoRA'} on {data}", data=data, epochs=epochs, test_rows=tested)
        for data, epochs, tested in (("SST-2", 3.0, 872.0), ("MRPC", 5.0, 408.0))
        for full in (True, False)
    ]
    assert check_table(rows) == []
    assert {
        one.rule for one in check_table([*rows[:3], row("LoRA on MRPC", data="mrpc", epochs=4.0)])
    } == {"V502"}


def test_data_that_no_two_rows_of_a_method_share_are_one_comparison() -> None:
    """Otherwise a table that compares methods on different data would pass."""
    rows = [row("Full", data="imdb"), row("LoRA", data="sst2"), row("IA3", data="imdb")]
    assert [(one.rule, one.subject) for one in check_table(rows)] == [("V503", "LoRA")]


def test_rows_of_one_method_are_its_seeds() -> None:
    rows = [
        row("LoRA", seed=42.0, accuracy=0.930, train_seconds=100.0),
        row("LoRA", seed=43.0, accuracy=0.932, train_seconds=160.0),
        row("Full", seed=42.0, accuracy=0.940, train_seconds=120.0),
    ]
    (group,) = groups_of(rows)
    assert [(one.name, one.accuracy) for one in group.methods] == [
        ("LoRA", pytest.approx(0.931)),
        ("Full", 0.940),
    ]
    assert group.remarks == ()
    assert group.lines == ((0, 1), (2,))
    assert [(one.rule, one.lines) for one in check_table(rows)] == [("V408", (0, 1))]


def test_row_rules_look_at_every_seed() -> None:
    rows = [
        row("LoRA", seed=float(seed), accuracy=accuracy)
        for seed, accuracy in enumerate((0.9, 1.0, 0.9))
    ]
    assert [(one.rule, one.lines) for one in check_table(rows)] == [("V303", (1,))]


def test_repeated_rows_without_a_seed_are_taken_as_seeds_and_this_is_said() -> None:
    (group,) = groups_of([row("LoRA", accuracy=0.9), row("Full"), row("LoRA", accuracy=0.8)])
    assert group.remarks == ("rows 1, 3 are LoRA with equal settings: taken as its seeds",)


def test_rows_of_one_method_with_other_settings_are_entries_of_their_own() -> None:
    (group,) = groups_of([row("LoRA", rank=4.0), row("LoRA", rank=8.0)])
    assert [one.name for one in group.methods] == ["LoRA (rank 4)", "LoRA (rank 8)"]


def test_the_count_of_full_fine_tuning_parts_models_and_this_is_said() -> None:
    rows = [
        row("Full", trainable=66_955_010),
        row("LoRA", trainable=739_586),
        row("Full", trainable=109_483_778),
        row("LoRA", trainable=296_450),
    ]
    audit = audit_rows(rows)
    assert [group.name for group in audit.groups] == [
        "model of 66,955,010 parameters",
        "model of 109,483,778 parameters",
    ]
    assert audit.findings == ()
    assert audit.remarks == (
        "no column names the models: each row is taken as one of the model above it",
    )


def test_rows_without_a_model_among_several_are_not_compared_and_this_is_said() -> None:
    rows = [row("LoRA", model="gpt2"), row("LoRA", model="opt-125m"), row("IA3")]
    audit = audit_rows(rows)
    assert len(audit.groups) == 3
    assert audit.remarks == (
        "2 models are named, but none for IA3: not compared with the other rows",
    )
    assert len(groups_of([*rows[:1], rows[2]])) == 1


def test_rows_below_a_models_own_row_are_of_that_model() -> None:
    first = ("DistilBERT", "+ LoRA", "BERT-base", "+ LoRA")
    counts = (66_955_010, 739_586, 109_483_778, 296_450)
    rows = [
        replace(row(name, trainable=count), method="lora" if "LoRA" in name else None)
        for name, count in zip(first, counts, strict=True)
    ]
    audit = audit_rows(rows)
    assert [group.name for group in audit.groups] == ["distilbert", "bert-base"]
    assert (audit.findings, audit.remarks) == (
        (),
        ("rows without a model are taken as rows of the model above them",),
    )
    wrong = [*rows[:3], replace(rows[3], trainable=RoundedCount.exactly(1_000_001))]
    (found,) = check_table(wrong)
    assert (found.rule, found.subject, found.lines) == ("V203", "+ LoRA [bert-base]", (3,))
    assert "12 layers of width 768" in found.evidence


def test_a_model_that_a_column_has_once_is_that_of_the_rows_below() -> None:
    rows = [
        row(name, model=model if name == "Full" else "")
        for model in ("gpt2", "opt-125m")
        for name in ("Full", "LoRA", "IA3")
    ]
    assert names(*rows) == [
        ("gpt2", ["Full", "LoRA", "IA3"]),
        ("opt-125m", ["Full", "LoRA", "IA3"]),
    ]


def test_findings_name_the_group_where_names_repeat() -> None:
    rows = [
        row(name, model=model, epochs=epochs)
        for model in ("gpt2", "opt-125m")
        for name, epochs in (("Full", 3.0), ("LoRA", 4.0), ("IA3", 3.0))
    ]
    assert [one.subject for one in check_table(rows)] == ["LoRA [gpt2]", "LoRA [opt-125m]"]


@pytest.mark.parametrize(
    ("name", "model", "data", "rest"),
    [
        ("DistilBERT LoRA", "distilbert", "", "lora"),
        ("SST-2 Full FT", "", "sst-2", "full ft"),
        ("Llama-3.2-3B QLoRA r=8", "llama-3.2-3b", "", "qlora r=8"),
        ("falcon QLoRA", "falcon", "", "qlora"),
        ("LLaMA-Adapter", "", "", "llama-adapter"),
        ("LoRA (seed 42)", "", "", "lora"),
        ("LoRA with 8-bit optimizer", "", "", "lora with 8-bit optimizer"),
        ("BERT to RoBERTa", "", "", "to"),
    ],
)
def test_words_for_models_and_data_are_found(name: str, model: str, data: str, rest: str) -> None:
    assert (model_in(name), data_in(name), without_words(name)) == (model, data, rest)


def test_keys_of_one_name_are_equal() -> None:
    assert key_of("SST-2") == key_of("sst2") == key_of("glue/sst_2")
    assert written("1.30", 1e6).digits == 2
