"""Every format in which results are published is read into the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, TableError, read_tables

GRID = "Method,Accuracy,Trainable Params,Train time\n"


def read(folder: Path, name: str, text: str, **options: object) -> tuple[PlainTable, ...]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_tables(path, **options)  # type: ignore[arg-type]


SAME = {
    "comma.csv": "Method,Accuracy,Trainable Params,GPU Memory (GB)\n"
    'Full FT,93.6%,"124,647,170",11.5\nLoRA,93.4%,"887,042",9.25\n',
    "tabs.tsv": "Method\tAccuracy\tTrainable Params\tGPU Memory (GB)\n"
    "Full FT\t93.6%\t124,647,170\t11.5\nLoRA\t93.4%\t887,042\t9.25\n",
    "german.csv": "Methode;Genauigkeit (%);Trainierbare Parameter;Speicher (GB)\n"
    "Full FT;93,6;124.647.170;11,5\nLoRA;93,4;887.042;9,25\n",
    "table.md": "# Results\n\n| Method | Accuracy | Trainable Params | GPU Memory (GB) |\n"
    "|:--|--:|--:|---|\n| Full FT | 93.6% | 124,647,170 | 11.5 |\n"
    "| **LoRA** | **93.4%** | 887,042 | 9.25 |\n",
    "page.html": "<h2>Results</h2><table><thead><tr><th>Method</th><th>Accuracy</th>"
    "<th>Trainable Params</th><th>GPU Memory (GB)</th></tr></thead><tbody>"
    "<tr><td>Full FT</td><td>93.6%</td><td>124,647,170</td><td>11.5</td></tr>"
    "<tr><td><b>LoRA</b></td><td>93.4%<sup>†</sup></td><td>887,042</td><td>9.25</td></tr>"
    "</tbody></table>",
    "paper.tex": r"""
\begin{table}\caption{Results of \textbf{two} methods}
\begin{tabular}{lrrr} % columns
\toprule
Method & Accuracy (\%) & Trainable Params & GPU Memory (GB) \\ \midrule
Full FT & 93.6 & 124{,}647{,}170 & 11.5 \\
% a comment & 1 & 2 & 3 \\
\textbf{LoRA} & \underline{93.4} & 887,042$^{\dagger}$ & 9.25 \\
\bottomrule
\end{tabular}\end{table}
""",
    "records.json": json.dumps(
        [
            {"method": "Full FT", "accuracy": 0.936, "params": 124647170, "memory_gb": 11.5},
            {"method": "LoRA", "accuracy": 0.934, "params": 887042, "memory_gb": 9.25},
        ]
    ),
    "columns.json": json.dumps(
        {
            "accuracy": {"Full FT": 0.936, "LoRA": 0.934},
            "params": {"Full FT": 124647170, "LoRA": 887042},
            "memory_gb": {"Full FT": 11.5, "LoRA": 9.25},
        }
    ),
    "methods.json": json.dumps(
        {
            "Full FT": {"accuracy": 0.936, "params": 124647170, "memory": {"peak_gb": 11.5}},
            "LoRA": {"accuracy": 0.934, "params": 887042, "memory": {"peak_gb": 9.25}},
        }
    ),
    "lines.jsonl": '{"method": "Full FT", "accuracy": 0.936, "params": 124647170, '
    '"memory_gb": 11.5}\n{"method": "LoRA", "accuracy": 0.934, "params": 887042, '
    '"memory_gb": 9.25}\n',
    "turned.csv": "Metric,Full FT,LoRA\nAccuracy (%),93.6,93.4\n"
    'Trainable Params,"124,647,170","887,042"\nGPU Memory (GB),11.5,9.25\n',
    "index.csv": ",accuracy,params,memory_gb\nFull FT,0.936,124647170,11.5\n"
    "LoRA,0.934,887042,9.25\n",
    "sniffed.txt": "| Algorithm | Acc. | #Params | VRAM (GB) |\n|---|---|---|---|\n"
    "| Full FT | 93.6 | 124,647,170 | 11.5 |\n| LoRA | 93.4 | 887,042 | 9.25 |\n",
}


@pytest.mark.parametrize("name", list(SAME))
def test_one_table_is_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    (table,) = read(tmp_path, name, SAME[name])
    assert table.ignored == ()
    full, lora = table.rows
    assert (full.method, lora.method) == ("full", "lora")
    assert lora.name == "LoRA"
    assert [full.accuracy, lora.accuracy] == pytest.approx([0.936, 0.934])
    assert full.trainable
    assert lora.trainable
    assert [full.trainable.value, lora.trainable.value] == [124_647_170, 887_042]
    assert [row.peak_memory and row.peak_memory.value for row in table.rows] == pytest.approx(
        [11.5e9, 9.25e9]
    )
    assert [row.line for row in table.rows] == [0, 1]
    assert all(len(cells) == len(table.headers) for cells in table.cells)
    assert table.fields
    assert set(table.fields.values()) == {"name", "accuracy", "trainable", "peak_memory"}


README = """# Project
| Option | Default |
|---|---|
| rank | 8 |

## SST-2
| Method | Acc |
|---|---|
| LoRA | 0.93 |

```
| Method | Acc |
|---|---|
| IA3 | 0.11 |
```

## MRPC
| Method | Acc |
|---|---|
| LoRA | 0.68 |
"""


def test_a_readme_with_several_tables(tmp_path: Path) -> None:
    """All that name methods by default, with their headings; code is skipped."""
    first, second = read(tmp_path, "README.md", README)
    assert [(t.title, t.rows[0].accuracy) for t in (first, second)] == [
        ("SST-2", 0.93),
        ("MRPC", 0.68),
    ]
    assert "table 1 ('Project') was not read: no column names the methods" in first.ignored[-1]
    (third,) = read(tmp_path, "README.md", README, number=3)
    assert third.title == "MRPC"
    with pytest.raises(TableError, match=r"no table 4. It has: 1 'Project'; 2 'SST-2'; 3 'MRPC'"):
        read(tmp_path, "README.md", README, number=4)


def test_latex_with_spans_headings_and_deviations(tmp_path: Path) -> None:
    text = r"""\begin{tabular*}{\textwidth}{@{}llcc@{}}
\hline
\multirow{2}{*}{Model} & \multirow{2}{*}{Method} & \multicolumn{2}{c}{GLUE} \\
\cmidrule(lr){3-4}
 & & SST-2 & MRPC \\ \hline
\multirow{2}{*}{RoBERTa$_{\text{base}}$} & LoRA & 94.2$_{\pm 0.3}$ & $\mathbf{89.1}\pm0.5$ \\
 & IA$^3$ & 93.0 & 87.5\textsuperscript{*} \\[2pt]
\hline
\end{tabular*}"""
    (table,) = read(tmp_path, "t.tex", text)
    lora, ia3 = table.rows
    assert (lora.model, ia3.model) == ("RoBERTa base", "RoBERTa base")
    assert (lora.method, ia3.method) == ("lora", "ia3")
    assert dict(lora.scores) == pytest.approx({"sst2 accuracy": 0.942, "mrpc": 0.891})
    assert dict(ia3.scores) == pytest.approx({"sst2 accuracy": 0.93, "mrpc": 0.875})


def test_headings_within_a_table_separate_its_rows(tmp_path: Path) -> None:
    """A heading across the table is the model of the rows below, or their data set."""
    rows = (
        "<tr><th>Method</th><th>Acc</th></tr><tr><td colspan=2>{}</td></tr>"
        "<tr><td>LoRA</td><td>0.9</td></tr><tr><td colspan=2>{}</td></tr>"
        "<tr><td>LoRA</td><td>0.8</td></tr>"
    )
    (table,) = read(tmp_path, "a.html", f"<table>{rows.format('bert-base', 'gpt2')}</table>")
    assert [row.model for row in table.rows] == ["bert-base", "gpt2"]
    (table,) = read(tmp_path, "b.html", f"<table>{rows.format('SST-2', 'MRPC')}</table>")
    assert [row.data for row in table.rows] == ["SST-2", "MRPC"]


PEFT_RUN = {
    "run_info": {
        "total_time": 1800.0,
        "experiment_name": "lora/tiny-rank16",
        "train_config": {
            "model_id": "org/tiny",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "max_steps": 5000,
            "seed": 3,
            "optimizer_kwargs": {"lr": 1e-4},
        },
        "peft_config": {"peft_type": "LORA", "r": 16, "target_modules": ["v_proj", "q_proj"]},
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_max": 22_000_000_000,
        "accelerator_memory_reserved_avg": 12_000_000_000,
        "train_time": 1500.5,
        "num_trainable_params": 9_000_000,
        "num_total_params": 3_000_000_000,
        "status": "success",
        "metrics": [
            {"step": 2500, "valid accuracy": 0.3, "train loss": 0.7, "train samples": 10000},
            {"step": 5000, "test accuracy": 0.48, "train loss": 0.6, "train samples": 20000},
        ],
    },
    "meta_info": {"package_info": {"torch-version": "2.9.0", "peft-version": "0.18.0"}},
}


def test_results_of_pefts_method_comparison(tmp_path: Path) -> None:
    (table,) = read(tmp_path, "lora.json", json.dumps(PEFT_RUN))
    (row,) = table.rows
    assert (row.method, row.model, row.precision, row.seed) == ("lora", "org/tiny", "bfloat16", 3)
    assert (row.accuracy, row.train_seconds, row.rank, row.total_steps) == (0.48, 1500.5, 16, 5000)
    assert row.peak_memory
    assert row.trainable
    assert row.total
    assert (row.peak_memory.value, row.trainable.value, row.total.value) == (22e9, 9e6, 3e9)
    assert (row.targets, row.validation_accuracies) == (("query", "value"), (0.3,))
    assert row.train_rows is None  # samples seen are no rows
    assert row.versions == {"torch": "2.9.0", "peft": "0.18.0"}
    (tmp_path / "full.json").write_text(
        json.dumps(PEFT_RUN | {"run_info": PEFT_RUN["run_info"] | {"peft_config": None}}),  # type: ignore[operator]
        encoding="utf-8",
    )
    (folder,) = read_tables(tmp_path)
    assert {one.name.split()[0] for one in folder.rows} == {"LORA", "full-finetuning"}


HISTORY = [
    {"loss": 0.6, "epoch": 0.5, "step": 10},
    {"loss": 0.4, "epoch": 1.0, "step": 20},
    {"eval_loss": 0.35, "eval_accuracy": 0.81, "epoch": 1.0, "step": 20},
    {"loss": 0.2, "epoch": 2.0, "step": 40},
    {"eval_loss": 0.31, "eval_accuracy": 0.86, "epoch": 2.0, "step": 40},
    {"train_runtime": 75.5, "train_samples_per_second": 8.5, "epoch": 2.0, "step": 40},
]


def test_a_folder_of_the_trainers_runs(tmp_path: Path) -> None:
    """What belongs to one run is one row; the checkpoint's folder belongs to the run."""
    run = tmp_path / "runs" / "lora-r8"
    state = {"log_history": HISTORY, "global_step": 40, "epoch": 2.0, "train_batch_size": 8}
    (run / "checkpoint-40").mkdir(parents=True)
    (run / "checkpoint-40" / "trainer_state.json").write_text(json.dumps(state))
    (run / "all_results.json").write_text(
        json.dumps(
            {"eval_accuracy": 0.86, "train_runtime": 75.5, "epoch": 2.0, "eval_runtime": 9.0}
        )
    )
    (run / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "bert-base-uncased"})
    )
    (run / "tokenizer_config.json").write_text("{}")
    (table,) = read_tables(tmp_path / "runs")
    (row,) = table.rows
    assert (row.method, row.model, row.rank) == ("lora", "bert-base-uncased", 8)
    assert row.train_losses == pytest.approx((0.5, 0.2))
    assert row.validation_losses == (0.35, 0.31)
    assert row.validation_accuracies == (0.81, 0.86)
    assert (row.validation_accuracy, row.train_seconds, row.epochs) == (0.86, 75.5, 2.0)
    assert (row.total_steps, row.samples_per_second) == (40, 8.5)


def test_logs_of_llama_factory_and_printed_ones(tmp_path: Path) -> None:
    lines = [
        {
            "current_steps": 5,
            "total_steps": 10,
            "loss": 2.0,
            "epoch": 0.5,
            "elapsed_time": "0:00:30",
        },
        {
            "current_steps": 10,
            "total_steps": 10,
            "loss": 1.0,
            "epoch": 1.0,
            "elapsed_time": "0:01:05",
        },
    ]
    (table,) = read(tmp_path, "lora/trainer_log.jsonl", "\n".join(map(json.dumps, lines)))
    (row,) = table.rows
    assert (row.name, row.train_seconds, row.total_steps) == ("lora", 65, 10)
    assert row.train_losses == (1.5,)
    printed = "Loading\n" + "\n".join(f"  {step}" for step in HISTORY)
    (table,) = read(tmp_path, "ia3/train.log", printed)
    assert table.rows[0].train_seconds == 75.5
    assert table.rows[0].validation_losses == (0.35, 0.31)


def test_results_of_lm_eval(tmp_path: Path) -> None:
    values = {
        "results": {
            "arc_easy": {"alias": "arc_easy", "acc,none": 0.61, "acc_stderr,none": 0.01},
            "gsm8k": {"exact_match,strict-match": 0.33, "exact_match_stderr,strict-match": 0.02},
        },
        "config": {"model_args": "pretrained=org/tiny,peft=out/lora"},
        "n-samples": {"arc_easy": {"original": 2376, "effective": 2376}},
    }
    (table,) = read(tmp_path, "results.json", json.dumps(values))
    arc, gsm = table.rows
    assert (arc.method, arc.model, arc.data, arc.accuracy) == ("lora", "org/tiny", "arc_easy", 0.61)
    assert arc.test_rows == 2376
    assert (gsm.data, dict(gsm.scores)) == ("gsm8k", {"exact_match": 0.33})


def test_exports_of_trackers(tmp_path: Path) -> None:
    text = (
        "Name,params.learning_rate,params.peft_method,metrics.train_runtime,eval/accuracy,eval/f1\n"
        "brave-fox-1,0.0002,lora,512.5,0.91,0.9\n"
    )
    (table,) = read(tmp_path, "runs.csv", text)
    (row,) = table.rows
    assert (row.method, row.learning_rate, row.train_seconds) == ("lora", 2e-4, 512.5)
    assert (row.validation_accuracy, dict(row.scores)) == (0.91, {"f1": 0.9})


def test_one_run_is_nested_json(tmp_path: Path) -> None:
    values = {"method": "ia3", "metrics": {"accuracy": 0.7}, "parameters": {"trainable": 1234}}
    (table,) = read(tmp_path, "run.json", json.dumps(values))
    (row,) = table.rows
    assert (row.method, row.accuracy) == ("ia3", 0.7)
    assert row.trainable
    assert row.trainable.value == 1234


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.md", "# Nothing here\n", "holds no table. Give one as CSV, Markdown"),
        ("a.html", "<p>Nothing</p>", "holds no table"),
        ("a.tex", r"\section{Nothing}", "holds no table"),
        ("a.log", "nothing\n", "holds no line with figures"),
        ("a.json", '{"text": "x"}', "holds no table"),
    ],
)
def test_a_file_without_a_table_is_refused_in_one_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=message) as caught:
        read(tmp_path, name, text)
    assert len(str(caught.value).splitlines()) == 1


def test_other_kinds_of_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04\xff\xfe\x9c")
    with pytest.raises(TableError, match=r"is a spreadsheet. Save the table as CSV"):
        read_tables(tmp_path / "t.xlsx")
