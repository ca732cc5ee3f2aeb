"""Tables that an audit once refused or misread, one of each kind: every figure is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_methods.__main__ import main
from peft_methods.analysis.external.tables import read_tables

TABLES = {
    "several models": (
        "t.csv",
        "Model,Dataset,Method,Acc\na,RTE,FT,0.7\na,RTE,LoRA,0.6\nb,RTE,FT,0.8\n",
        3,
    ),
    "several seeds": ("t.csv", "Method,seed,Acc\nLoRA,1,0.9\nLoRA,2,0.8\nFull FT,1,0.9\n", 3),
    "model in the name": ("t.csv", 'Method,Params\nBERT LoRA,"296,450"\nGPT-2 LoRA,"294,912"\n', 2),
    "kin": ("t.csv", "Method,Params\nLoRA,0.8M\nVB-LoRA,40K\n", 2),
    "out of memory": ("t.csv", "Method,Memory\nFull,OOM\nLoRA,9 GB\n", 2),
    "share in brackets": ("t.csv", 'Method,Params\nLoRA,"1,000 (0.5%)"\n', 1),
    "marks": ("t.csv", "Method,Params,Acc\nLoRA,80K†,**91.2**\nIA3,20K‡,91.0*\n", 2),
    "clock": ("t.csv", "Method,Train time\nLoRA,1:02:03\nIA3,12:30\n", 2),
    "hours": ("t.csv", "Method,Train time\nLoRA,1h 5m\nIA3,3h05\n", 2),
    "reason": ("t.csv", "Method,Acc\nLoRA,0.9\nIA3,N/A (not run)\n", 2),
    "markdown": ("t.md", "| Method | VRAM (GB) |\n|---|---|\n| LoRA | 9 |\n", 1),
    "turned": ("t.csv", "Metric,Full Fine-Tuning,IA3\nTime (min),9,8\nTrainable Params,1M,2K\n", 2),
    "nested run": ("t.json", json.dumps({"method": "lora", "metrics": {"f1": 0.7}}), 1),
    "pandas index": ("t.csv", ",acc,params\nLoRA,0.9,1M\n", 1),
    "names of PEFT": (
        "t.csv",
        "peft_type,model_id,num_trainable_params,accelerator_memory_max,train_time\n"
        "LORA,org/m,9000,21000000000,900.5\n",
        1,
    ),
    "number of": ("t.csv", "Method,# of Trainable Params.,Training runtime\nLoRA,1M,2 min\n", 1),
    "dash": ("t.csv", "Method,Hardware,Acc\nTF-IDF,—,0.5\nLoRA,T4,0.6\n", 2),
    "zero": ("t.csv", "Method,Trainable Params,Acc\nLoRA,0,0.0\n", 1),
    "all and percent": (
        "t.csv",
        'Method,Trainable Params,All Params,Trainable %\nLoRA,7,"1,000",0.7%\n',
        1,
    ),
    "log": ("t.csv", "Method,test_accuracy,validation_accuracies\nLoRA,0.9,0.8;0.9\n", 1),
    "F1 alone": ("t.csv", "Method,F1,test_rows\nLoRA,0.9,277\n", 1),
    "targets": ("t.csv", 'Method,Params\n"LoRA r=4, Q+V",1M\n', 1),
    "tokens": ("t.csv", "Method,Model,Params\nPrefix-Tuning (30 tokens),roberta-base,1M\n", 1),
}


@pytest.mark.parametrize("kind", list(TABLES))
def test_every_row_and_column_is_read(kind: str, tmp_path: Path) -> None:
    name, text, rows = TABLES[kind]
    (tmp_path / name).write_text(text, encoding="utf-8")
    (table,) = read_tables(tmp_path / name)
    assert len(table.rows) == rows
    assert table.ignored == ()
    assert table.fields
    assert set(table.headers) == set(table.fields)


def test_kin_of_lora_is_named_as_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Method,Hardware\nUni-LoRA,—\n", encoding="utf-8")
    (row,) = read_tables(tmp_path / "t.csv")[0].rows
    assert (row.name, row.device) == ("Uni-LoRA", None)


def test_the_command_chooses_a_table_and_takes_columns_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.md"
    path.write_text(
        "## A\n| Method | Footprint (GB) |\n|---|---|\n| LoRA | 3 |\n\n"
        "## B\n| Method | Acc |\n|---|---|\n| LoRA | 0.9 |\n",
        encoding="utf-8",
    )
    assert main(["audit", str(path), "--table", "2"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["audit", str(path), "--map", "Footprint (GB)=peak_memory"]) == 0
    assert "unknown column" not in capsys.readouterr().err
    assert main(["audit", str(path), "--map", "Footprint"]) == 4
    assert "is not COLUMN=FIELD" in capsys.readouterr().err
    assert main(["audit", str(path), "--table", "7"]) == 2
    assert "has no table 7. It has: 1 'A'; 2 'B'" in capsys.readouterr().err
