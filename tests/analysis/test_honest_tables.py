"""Correct but unusual tables: no rule finds anything, and no value is misread."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from peft_methods.analysis.checks.parameter_counts import models_named, verdict
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.audit import check_table
from peft_methods.analysis.external.tables import TableError, read_tables

# Counts that PEFT (0.21) gives with task_type SEQ_CLS and two classes, or counts that include a
# pooler trained with the head.
HONEST = {
    "LoRA on all linear layers of BERT, including its pooler": """\
method,model,accuracy,trainable_parameters,learning_rate
Full,bert-base-uncased,0.931,"109,483,778",2e-5
LoRA,bert-base-uncased,0.928,"10,716,674",2e-4
QLoRA,bert-base-uncased,0.926,"1,340,930",2e-4
""",
    "whole numbers below a unit": """\
method,model,#Params (M),%,accuracy
Full,RoBERTa-large,355,100,96.4
LoRA,RoBERTa-large,0.8,0.23,96.2
BitFit,RoBERTa-large,0.27,0.08,95.1
""",
    "names of parts that are trained beside the method": """\
method,model,trainable_parameters
"LoRA r=8 qkvo + embeddings + norms",llama-2-7b,"139,726,848"
"LoRA r=8 qkvo (modules_to_save: embed_tokens, norm)",llama-2-7b,"139,726,848"
""",
    "LoRA on all linear layers of BERT large": """\
method,model,trainable_parameters
LoRA,bert-large-uncased,"28,444,674"
""",
    "BERT's pooler trained with the head": """\
method,model,trainable_parameters
LoRA,bert-base-uncased,"887,042"
Head only,bert-base-uncased,"592,130"
BitFit,bert-base-uncased,"694,274"
""",
    "BitFit without the pooler's bias": """\
method,model,trainable_parameters
BitFit,bert-base-uncased,"103,682"
""",
    "cased BERT, with an incomplete name": """\
method,model,trainable_parameters
Full,bert-base,"108,311,810"
LoRA,bert-base,"296,450"
""",
    "cased DistilBERT": """\
method,model,trainable_parameters
Full,distilbert,"65,783,042"
""",
    "a decoder with the size of RoBERTa, in a table without a model column": """\
method,accuracy,trainable_parameters
Full,0.931,124M
LoRA,0.928,"296,448"
""",
    "methods whose names only contain the name of a known method": """\
method,model,trainable_parameters
AdaLoRA,roberta-base,"1,034,810"
LoRA-FA,roberta-base,"739,586"
AdapterDrop,roberta-base,"700,000"
""",
    "LoRA slower than full fine-tuning, IA3 with more memory, QLoRA slightly above LoRA": """\
method,model,accuracy,train_seconds,peak_memory_mb,epochs,learning_rate
Full,mpnet-base,0.937,33.8,9125,3,2e-5
LoRA,mpnet-base,0.935,39.7,7432,3,1e-3
QLoRA,mpnet-base,0.937,49.8,7542,3,5e-4
IA3,mpnet-base,0.935,35.5,9350,3,1e-2
""",
    "one method twice, with settings of equal cost": """\
method,peak_memory_mb,learning_rate
LoRA (alpha 16),2413.71,1e-3
LoRA (alpha 32),2413.71,1e-3
""",
    "a tuned learning rate that equals full fine-tuning's": """\
method,learning_rate,learning_rates
Full,1e-4,3e-5;1e-4;3e-4
Adapters,1e-4,3e-5;1e-4;3e-4
""",
    "the accuracy in the epoch of the lowest validation loss": """\
method,validation_accuracy,validation_losses,validation_accuracies
LoRA,0.921,0.30;0.25;0.28;0.33,0.910;0.921;0.925;0.923
""",
    "four bits given as QLoRA's precision": """\
method,precision,gpu
LoRA,bf16,A100
IA3,bf16,A100
QLoRA,bf16 + nf4,A100
""",
    "four bits given as QLoRA's precision, in one word": """\
method,precision
LoRA,fp16
QLoRA,4-bit
""",
    "validation accuracy with two digits, its log with four": """\
method,validation_accuracy,validation_accuracies
LoRA,0.92,0.9102;0.9163;0.9151
Full,93%,0.9102;0.9263;0.9311
""",
    "epochs given in one row only": """\
method,train_seconds,epochs
LoRA,1000,
QLoRA,1100,5
""",
}


def findings_in(path: Path) -> list[str]:
    return [
        str(finding)
        for finding in check_table(read_tables(path)[0].rows)
        if finding.severity != "note"
    ]


@pytest.mark.parametrize("name", list(HONEST))
def test_rules_find_nothing_in_a_correct_table(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HONEST[name], encoding="utf-8")
    assert findings_in(tmp_path / "t.csv") == []


@pytest.mark.parametrize(
    ("method", "model", "count", "expected"),
    [
        ("lora", "bert-base-uncased", 1_340_931, "off"),  # one more than for all linear layers
        ("bitfit", "bert-base-uncased", 103_683, "off"),
        ("full", "bert-base", 108_311_811, "off"),
        ("head_only", "bert-base-uncased", 296_450, "off"),
        ("lora", "roberta-base", 296_450, "head missing"),
    ],
)
def test_verdict_refuses_a_count_close_to_a_correct_one(
    method: str, model: str, count: int, expected: str
) -> None:
    known = tuple(replace(one, labels=2) for one in models_named(model))
    assert verdict(method, RoundedCount.exactly(count), known, head="sequence") == expected


def test_rules_report_differences_beyond_rounding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,validation_accuracy,validation_accuracies\nLoRA,0.9,0.91;0.93;0.92\n",
        encoding="utf-8",
    )
    assert [line[:4] for line in findings_in(tmp_path / "t.csv")] == ["V304"]
    (tmp_path / "t.csv").write_text(
        "method,precision\nLoRA,fp32\nIA3,fp32\nQLoRA,nf4 bf16\n", encoding="utf-8"
    )
    assert [line.split(" → ")[0] for line in findings_in(tmp_path / "t.csv")] == [
        "V505 warning QLoRA: precision bf16, the others' fp32"
    ]


def test_rules_find_nothing_in_forty_correct_rows(tmp_path: Path) -> None:
    lines = [
        f"LoRA r{rank},roberta-base,{592_130 + 36_864 * rank},{rank / 1e4:.4g}"
        for rank in range(1, 41)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["method,model,params,lr", *lines]), encoding="utf-8")
    assert findings_in(tmp_path / "t.csv") == []


def rows_of(path: Path) -> tuple[ResultRow, ...]:
    return read_tables(path)[0].rows


COMMAS = "method;accuracy;trainable_parameters;train_time;peak_memory_gb;learning_rate;torch\n{}"


def test_read_table_reads_decimal_commas(tmp_path: Path) -> None:
    """Even with three digits after the comma, which would otherwise mean thousands."""
    text = COMMAS.format(
        "Full;0,933;124.647.170;428,9 s;3,240;0,001;2.11.0\n"
        "LoRA;0,94;887.042;1.327,4 s;2,41;0,002;2.11.0\n"
    )
    (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
    full, lora = rows_of(tmp_path / "t.csv")
    assert full.trainable is not None
    assert full.peak_memory is not None
    assert (full.accuracy, full.trainable.value, full.train_seconds, full.learning_rate) == (
        0.933,
        124_647_170,
        428.9,
        0.001,
    )
    assert full.peak_memory.value == pytest.approx(3.24e9)
    assert (lora.train_seconds, lora.versions) == (1327.4, {"torch": "2.11.0"})


def test_read_table_reads_thousands_if_no_comma_can_be_a_decimal(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method;trainable_parameters;accuracy\nFull;124,647,170;0.93\n", encoding="utf-8"
    )
    (full,) = rows_of(tmp_path / "t.csv")
    assert full.trainable is not None
    assert (full.trainable.value, full.accuracy) == (124_647_170, 0.93)


@pytest.mark.parametrize("text", ["0,933", "0,93"])
def test_a_decimal_comma_among_points_costs_its_cell(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'method,learning_rate\nLoRA,"{text}"\n', encoding="utf-8")
    (table,) = read_tables(tmp_path / "t.csv")
    assert table.rows[0].learning_rate is None
    assert f"row 1: {text!r} is not a number" in table.ignored[0]
    assert "decimal point" in table.ignored[0]


def test_read_table_reads_non_breaking_spaces(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,time,memory\nLoRA,67.13\u00a0min,3.24\u202fGB\n", encoding="utf-8"
    )
    (row,) = rows_of(tmp_path / "t.csv")
    assert row.peak_memory is not None
    assert (row.train_seconds, row.peak_memory.value) == (
        pytest.approx(4027.8),
        pytest.approx(3.24e9),
    )


@pytest.mark.parametrize(
    "values",
    [
        {
            "method": {"0": "Full", "1": "LoRA"},
            "accuracy": {"0": 0.9, "1": 1.0},
        },  # the form that pandas writes
        {"method": ["Full", "LoRA"], "accuracy": [0.9, 1.0]},
    ],
)
def test_read_table_reads_json_by_columns(values: object, tmp_path: Path) -> None:
    """A regression test: columns were read as methods, so that the rules found nothing."""
    (tmp_path / "t.json").write_text(json.dumps(values), encoding="utf-8")
    assert [(row.name, row.accuracy) for row in rows_of(tmp_path / "t.json")] == [
        ("Full", 0.9),
        ("LoRA", 1.0),
    ]


def test_read_table_refuses_json_columns_of_different_length(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        '{"method": ["Full", "LoRA"], "accuracy": [0.9]}', encoding="utf-8"
    )
    with pytest.raises(TableError, match="columns differ in length"):
        read_tables(tmp_path / "t.json")


def test_read_table_reads_spaces_between_thousands(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,trainable_parameters\nLoRA,1 181 954\nIA3,656\u202f642\n", encoding="utf-8"
    )
    assert [row.trainable and row.trainable.value for row in rows_of(tmp_path / "t.csv")] == [
        1_181_954,
        656_642,
    ]


def test_read_table_ignores_other_lists_in_a_json_object(tmp_path: Path) -> None:
    values = {"models": ["roberta-base"], "results": [{"method": "LoRA", "accuracy": 1.0}]}
    (tmp_path / "t.json").write_text(json.dumps(values), encoding="utf-8")
    assert [row.accuracy for row in rows_of(tmp_path / "t.json")] == [1.0]


def test_a_share_among_percentages_costs_its_cell(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("method,accuracy\nLoRA,0.93\nQLoRA,93.1\n", encoding="utf-8")
    (table,) = read_tables(tmp_path / "t.csv")
    assert [row.accuracy for row in table.rows] == [None, pytest.approx(0.931)]
    assert "row 1: '0.93' stands among percentages; write shares" in table.ignored[0]
    (tmp_path / "t.csv").write_text(
        "method,accuracy\nLoRA,0\nQLoRA,93.1\nIA3,0.93%\n", encoding="utf-8"
    )
    assert [row.accuracy for row in rows_of(tmp_path / "t.csv")] == pytest.approx(
        [0, 0.931, 0.0093]
    )
