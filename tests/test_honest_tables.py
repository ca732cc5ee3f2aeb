"""Tables with nothing wrong, however unusual their figures or their writing: no rule may object, and none may be misread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_methods.plain_tables import TableError, read_table
from peft_methods.validity import judge_table
from peft_methods.validity.counts import models_named, verdict
from peft_methods.validity.figures import Figures, Written

# Counts that PEFT (0.21) gives with task_type SEQ_CLS and two classes, or that follow from training the pooler with the head.
HONEST = {
    "LoRA on all linear layers of BERT, whose pooler is one": """\
method,model,accuracy,trainable_parameters,learning_rate
Full,bert-base-uncased,0.931,"109,483,778",2e-5
LoRA,bert-base-uncased,0.928,"10,716,674",2e-4
QLoRA,bert-base-uncased,0.926,"1,340,930",2e-4
""",
    "the same on the large one": 'method,model,trainable_parameters\nLoRA,bert-large-uncased,"28,444,674"\n',
    "BERT's pooler trained with the head": """\
method,model,trainable_parameters
LoRA,bert-base-uncased,"887,042"
Head only,bert-base-uncased,"592,130"
BitFit,bert-base-uncased,"694,274"
""",
    "BitFit without the pooler's bias": 'method,model,trainable_parameters\nBitFit,bert-base-uncased,"103,682"\n',
    "BERT with capital letters, by half its name": """\
method,model,trainable_parameters
Full,bert-base,"108,311,810"
LoRA,bert-base,"296,450"
""",
    "DistilBERT with capital letters": 'method,model,trainable_parameters\nFull,distilbert,"65,783,042"\n',
    "a decoder as large as RoBERTa, in a table that does not name it": """\
method,accuracy,trainable_parameters
Full,0.931,124M
LoRA,0.928,"296,448"
""",
    "methods that only share a part of their name": """\
method,model,trainable_parameters
AdaLoRA,roberta-base,"1,034,810"
LoRA-FA,roberta-base,"739,586"
AdapterDrop,roberta-base,"700,000"
""",
    "LoRA slower than full fine-tuning, IA3 with more memory, QLoRA with a little more than LoRA": """\
method,model,accuracy,train_seconds,peak_memory_mb,epochs,learning_rate
Full,mpnet-base,0.937,33.8,9125,3,2e-5
LoRA,mpnet-base,0.935,39.7,7432,3,1e-3
QLoRA,mpnet-base,0.937,49.8,7542,3,5e-4
IA3,mpnet-base,0.935,35.5,9350,3,1e-2
""",
    "one method twice, with settings that cost the same": """\
method,peak_memory_mb,learning_rate
LoRA (alpha 16),2413.71,1e-3
LoRA (alpha 32),2413.71,1e-3
""",
    "a rate that the method's own grid found, though full fine-tuning has it too": """\
method,learning_rate,learning_rates
Full,1e-4,3e-5;1e-4;3e-4
Adapters,1e-4,3e-5;1e-4;3e-4
""",
    "the epoch of the lowest validation loss": """\
method,validation_accuracy,validation_losses,validation_accuracies
LoRA,0.921,0.30;0.25;0.28;0.33,0.910;0.921;0.925;0.923
""",
    "QLoRA's four bits told as its precision": """\
method,precision,gpu
LoRA,bf16,A100
IA3,bf16,A100
QLoRA,bf16 + nf4,A100
""",
    "the same in one word": "method,precision\nLoRA,fp16\nQLoRA,4-bit\n",
    "validation accuracy in two digits, its log in four": """\
method,validation_accuracy,validation_accuracies
LoRA,0.92,0.9102;0.9163;0.9151
Full,93%,0.9102;0.9263;0.9311
""",
    "epochs of one row alone": """\
method,train_seconds,epochs
LoRA,1000,
QLoRA,1100,5
""",
}


def judged(path: Path) -> list[str]:
    return [
        str(finding) for finding in judge_table(read_table(path).rows) if finding.severity != "note"
    ]


@pytest.mark.parametrize("what", list(HONEST))
def test_an_honest_table_has_no_finding(what: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HONEST[what], encoding="utf-8")
    assert judged(tmp_path / "t.csv") == []


@pytest.mark.parametrize(
    ("method", "model", "count", "said"),
    [
        ("lora", "bert-base-uncased", 1_340_931, "off"),  # one more than all linear layers have
        ("bitfit", "bert-base-uncased", 103_683, "off"),
        ("full", "bert-base", 108_311_811, "off"),
        ("head_only", "bert-base-uncased", 296_450, "off"),
        ("lora", "roberta-base", 296_450, "head missing"),
    ],
)
def test_a_count_beside_an_honest_one_is_still_found(
    method: str, model: str, count: int, said: str
) -> None:
    assert verdict(method, Written.exactly(count), models_named(model)) == said


def test_what_rounding_does_not_explain_is_still_found(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,validation_accuracy,validation_accuracies\nLoRA,0.9,0.91;0.93;0.92\n",
        encoding="utf-8",
    )
    assert [line[:4] for line in judged(tmp_path / "t.csv")] == ["V304"]
    (tmp_path / "t.csv").write_text(
        "method,precision\nLoRA,fp32\nIA3,fp32\nQLoRA,nf4 bf16\n", encoding="utf-8"
    )
    assert [line.split(" → ")[0] for line in judged(tmp_path / "t.csv")] == [
        "V505 warning QLoRA: precision bf16, the others' fp32"
    ]


def test_many_rows_are_judged_by_the_same_rules(tmp_path: Path) -> None:
    lines = [
        f"LoRA r{rank},roberta-base,{592_130 + 36_864 * rank},{rank / 1e4:.4g}"
        for rank in range(1, 41)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["method,model,params,lr", *lines]), encoding="utf-8")
    assert judged(tmp_path / "t.csv") == []


def rows_of(path: Path) -> tuple[Figures, ...]:
    return read_table(path).rows


COMMAS = "method;accuracy;trainable_parameters;train_time;peak_memory_gb;learning_rate;torch\n{}"


def test_decimal_commas_of_a_spreadsheet_are_decimals(tmp_path: Path) -> None:
    """Also those with three digits behind them, which would else be thousands."""
    text = COMMAS.format(
        "Full;0,933;124.647.170;428,9 s;3,240;0,001;2.11.0\nLoRA;0,94;887.042;1.327,4 s;2,41;0,002;2.11.0\n"
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


def test_thousands_stay_thousands_where_no_comma_can_be_a_decimal_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method;trainable_parameters;accuracy\nFull;124,647,170;0.93\n", encoding="utf-8"
    )
    (full,) = rows_of(tmp_path / "t.csv")
    assert full.trainable is not None
    assert (full.trainable.value, full.accuracy) == (124_647_170, 0.93)


@pytest.mark.parametrize("text", ["0,933", "0,93"])
def test_a_decimal_comma_among_points_is_refused_not_misread(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'method,learning_rate\nLoRA,"{text}"\n', encoding="utf-8")
    with pytest.raises(TableError, match=r"'0,933?' is not a number.*decimal point"):
        read_table(tmp_path / "t.csv")


def test_spaces_that_do_not_break_are_spaces(tmp_path: Path) -> None:
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
        },  # as pandas writes it
        {"method": ["Full", "LoRA"], "accuracy": [0.9, 1.0]},
    ],
)
def test_json_by_columns_is_read_by_columns(values: object, tmp_path: Path) -> None:
    """Its columns were once taken for methods, and nothing was found."""
    (tmp_path / "t.json").write_text(json.dumps(values), encoding="utf-8")
    assert [(row.name, row.accuracy) for row in rows_of(tmp_path / "t.json")] == [
        ("Full", 0.9),
        ("LoRA", 1.0),
    ]


def test_json_columns_of_unlike_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        '{"method": ["Full", "LoRA"], "accuracy": [0.9]}', encoding="utf-8"
    )
    with pytest.raises(TableError, match="columns are not equally long"):
        read_table(tmp_path / "t.json")


def test_spaces_between_thousands_are_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,trainable_parameters\nLoRA,1 181 954\nIA3,656\u202f642\n", encoding="utf-8"
    )
    assert [row.trainable and row.trainable.value for row in rows_of(tmp_path / "t.csv")] == [
        1_181_954,
        656_642,
    ]


def test_lists_beside_the_rows_of_a_json_table_do_not_matter(tmp_path: Path) -> None:
    values = {"models": ["roberta-base"], "results": [{"method": "LoRA", "accuracy": 1.0}]}
    (tmp_path / "t.json").write_text(json.dumps(values), encoding="utf-8")
    assert [row.accuracy for row in rows_of(tmp_path / "t.json")] == [1.0]


def test_shares_among_percent_are_refused_not_taken_for_one_per_cent(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("method,accuracy\nLoRA,0.93\nQLoRA,93.1\n", encoding="utf-8")
    with pytest.raises(
        TableError,
        match=r"'accuracy' holds '0.93' among percent. Write shares \(0.93\) or percent \(93\)",
    ):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(
        "method,accuracy\nLoRA,0\nQLoRA,93.1\nIA3,0.93%\n", encoding="utf-8"
    )
    assert [row.accuracy for row in rows_of(tmp_path / "t.csv")] == pytest.approx(
        [0, 0.931, 0.0093]
    )
