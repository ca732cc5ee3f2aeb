"""JSON with nulls and nested scores, and the files that programs publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_methods.analysis.external.tables import PlainTable, read_tables

ROWS = {
    "records": [
        {"method": "full", "accuracy": None, "scores": {"f1": 0.9, "rouge1": None}},
        {"method": "lora", "accuracy": 0.91, "scores": {"f1": None, "rouge1": 0.4}},
    ],
    "by method": {
        "full": {"accuracy": None, "scores": {"f1": 0.9, "rouge1": None}},
        "lora": {"accuracy": 0.91, "scores": {"f1": None, "rouge1": 0.4}},
    },
    "columns": {
        "method": ["full", "lora"],
        "accuracy": [None, 0.91],
        "scores": [{"f1": 0.9, "rouge1": None}, {"f1": None, "rouge1": 0.4}],
    },
    "under a name": {
        "experiment": "sst2", "seed": None, "note": None,
        "results": [
            {"method": "full", "accuracy": None, "scores": {"f1": 0.9}},
            {"method": "lora", "accuracy": 0.91, "scores": {"rouge1": 0.4}, "memory": None},
        ],
    },
    "pandas split": {
        "columns": ["method", "accuracy", "f1", "rouge1"],
        "index": [0, 1],
        "data": [["full", None, 0.9, None], ["lora", 0.91, None, 0.4]],
    },
    "pandas table": {
        "schema": {"fields": [{"name": "method", "type": "string"}], "pandas_version": "1.4.0"},
        "data": [
            {"index": 0, "method": "full", "accuracy": None, "f1": 0.9, "rouge1": None},
            {"index": 1, "method": "lora", "accuracy": 0.91, "f1": None, "rouge1": 0.4},
        ],
    },
    "lists": [
        ["method", "accuracy", "f1", "rouge1"],
        ["full", None, 0.9, None],
        ["lora", 0.91, None, 0.4],
    ],
}  # fmt: skip


def read(folder: Path, name: str, values: Any) -> PlainTable:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
    (table,) = read_tables(path)
    return table


@pytest.mark.parametrize("form", list(ROWS))
def test_nulls_and_nested_scores(form: str, tmp_path: Path) -> None:
    full, lora = read(tmp_path, "t.json", ROWS[form]).rows
    assert (full.method, full.accuracy, dict(full.scores)) == ("full", None, {"f1": 0.9})
    assert (lora.method, lora.accuracy, dict(lora.scores)) == ("lora", 0.91, {"rouge1": 0.4})


def test_a_method_without_figures_is_a_row(tmp_path: Path) -> None:
    table = read(tmp_path, "t.json", {"full": None, "lora": {"accuracy": 0.91}})
    assert [(row.method, row.accuracy) for row in table.rows] == [("full", None), ("lora", 0.91)]


def test_all_results_of_the_trainer(tmp_path: Path) -> None:
    values = {
        "epoch": 3.0, "eval_accuracy": 0.9123, "eval_loss": 0.24, "eval_runtime": 2.1,
        "eval_samples": 872, "eval_samples_per_second": 410.0, "train_loss": 0.2,
        "train_runtime": 930.5, "train_samples": 67349, "train_samples_per_second": 217.1,
        "train_steps_per_second": 6.8, "total_flos": 5e15,
    }  # fmt: skip
    table = read(tmp_path, "lora-r8/all_results.json", values)
    (row,) = table.rows
    assert (row.method, row.validation_accuracy, row.train_seconds) == ("lora", 0.9123, 930.5)
    assert (row.train_rows, row.validation_rows, row.samples_per_second) == (67349, 872, 217.1)
    (remark,) = table.ignored
    assert "did you mean" not in remark


def test_results_of_lm_eval_with_groups_and_filters(tmp_path: Path) -> None:
    values = {
        "results": {
            "hellaswag": {"acc,none": 0.55, "acc_norm,none": 0.7, "acc_stderr,none": 0.005,
                          "alias": "hellaswag"},
            "wikitext": {"word_perplexity,none": 9.1, "word_perplexity_stderr,none": "N/A",
                         "bits_per_byte,none": 0.6, "alias": "wikitext"},
            "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.33,
                      "exact_match,flexible-extract": 0.35},
        },
        "config": {"model": "hf", "model_args": "pretrained=org/tiny,peft=out/lora-r16",
                   "limit": None},
        "n-samples": {"hellaswag": {"original": 10042, "effective": 10042}},
        "versions": {"hellaswag": 1.0},
    }  # fmt: skip
    table = read(tmp_path, "results_2024.json", values)
    assert table.ignored == ()
    assert [(row.data, row.accuracy, dict(row.scores)) for row in table.rows] == [
        ("hellaswag", 0.55, {"acc_norm": 0.7}),
        ("wikitext", None, {"word_perplexity": 9.1, "bits_per_byte": 0.6}),
        ("gsm8k", None, {"exact_match": 0.33}),
    ]


def test_older_results_of_lm_eval(tmp_path: Path) -> None:
    values = {
        "results": {
            "hellaswag": {"acc": 0.55, "acc_stderr": 0.005, "acc_norm": 0.7},
            "arc_easy": {"acc": 0.6, "acc_stderr": 0.01},
        },
        "versions": {"hellaswag": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=org/tiny,peft=out/ia3"},
    }
    table = read(tmp_path, "results.json", values)
    assert [(row.method, row.data, row.accuracy) for row in table.rows] == [
        ("ia3", "hellaswag", 0.55), ("ia3", "arc_easy", 0.6),
    ]  # fmt: skip


def test_trainer_state_as_it_is_published(tmp_path: Path) -> None:
    history = [
        {"epoch": 1.0, "grad_norm": None, "learning_rate": 1e-4, "loss": 0.41, "step": 10},
        {"epoch": 1.0, "eval_accuracy": 0.9, "eval_loss": None, "eval_runtime": 2.0, "step": 10},
        {"epoch": 2.0, "eval_accuracy": 0.92, "eval_loss": 0.24, "step": 20},
        {"epoch": 2.0, "step": 20, "train_loss": 0.31, "train_runtime": 93.5, "total_flos": 5e15},
    ]
    values = {
        "best_metric": None, "best_model_checkpoint": None, "epoch": 2.0, "global_step": 20,
        "log_history": history, "max_steps": 20, "num_train_epochs": 2, "trial_name": None,
        "train_batch_size": 16, "stateful_callbacks": {"TrainerControl": {"args": {}}},
    }  # fmt: skip
    table = read(tmp_path, "ia3/checkpoint-20/trainer_state.json", values)
    (row,) = table.rows
    assert (row.method, row.epochs, row.total_steps, row.train_seconds) == ("ia3", 2, 20, 93.5)
    assert (row.validation_accuracies, row.validation_losses) == ((0.9, 0.92), (0.24,))
    assert table.ignored == ()


def test_a_csv_export_of_wandb(tmp_path: Path) -> None:
    text = (
        '"Name","State","Tags","Created","Runtime","Sweep","base_model","learning_rate","lora_r",'
        '"peft_method","seed","_runtime","_step","eval/accuracy","train/global_step",'
        '"train_runtime"\n'
        '"a","finished","","2024-05-01T10:00:00Z","930","","roberta-base","0.0002","8","lora","0",'
        '"932.4","842","0.941","842","910.5"\n'
        '"b","crashed","","2024-05-01T11:00:00Z","12","","roberta-base","0.00002","","full","0",'
        '"12.1","4","","4",""\n'
    )
    (tmp_path / "export.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(tmp_path / "export.csv")
    lora, full = table.rows
    assert (lora.method, lora.model, lora.rank, lora.seed) == ("lora", "roberta-base", 8, 0)
    assert (lora.validation_accuracy, lora.train_seconds, lora.total_steps) == (0.941, 910.5, 842)
    assert (full.method, full.validation_accuracy, full.train_seconds) == ("full", None, None)
    assert "Did you mean" not in " ".join(table.ignored)
    assert "'_step' has no unit" not in " ".join(table.ignored)


def test_settings_beside_the_list_of_runs_are_those_of_all(tmp_path: Path) -> None:
    values = {
        "config": {"model": "bert-base-uncased", "epochs": 3, "name": "sweep"},
        "created": "2024-05-01",
        "runs": [{"name": "full", "accuracy": 0.9}, {"name": "lora", "accuracy": 0.8, "epochs": 5}],
    }
    full, lora = read(tmp_path, "t.json", values).rows
    assert (full.method, full.model, full.epochs) == ("full", "bert-base-uncased", 3)
    assert (lora.method, lora.model, lora.epochs) == ("lora", "bert-base-uncased", 5)
