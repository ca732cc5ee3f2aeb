"""Headers of several rows, and columns that are seeds, data sets, models or methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, read_tables


def read(folder: Path, name: str, text: str, mapping: dict[str, str] | None = None) -> PlainTable:
    (folder / name).write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / name, None, mapping)
    return table


GLUE = {
    "t.csv": ",SST-2,,MRPC,\nMethod,Acc,F1,Acc,F1\nFull,94.1,94,88,91\nLoRA,93,92.5,87,90\n",
    "index.csv": ",SST-2,SST-2,MRPC,MRPC\n,Acc,F1,Acc,F1\nMethod,,,,\n"
    "Full,94.1,94,88,91\nLoRA,93,92.5,87,90\n",
    "t.md": "| | SST-2 | | MRPC | |\n|---|---|---|---|---|\n| **Method** | Acc | F1 | Acc | F1 |\n"
    "| Full | 94.1 | 94 | 88 | 91 |\n| LoRA | 93 | 92.5 | 87 | 90 |\n",
    "t.html": "<table><tr><td rowspan=2>Method</td><td colspan=2>SST-2</td><td colspan=2>MRPC</td>"
    "</tr><tr><td>Acc</td><td>F1</td><td>Acc</td><td>F1</td></tr><tr><td>Full</td><td>94.1</td>"
    "<td>94</td><td>88</td><td>91</td></tr><tr><td>LoRA</td><td>93</td><td>92.5</td><td>87</td>"
    "<td>90</td></tr></table>",
    "t.tex": r"\begin{tabular}{lcccc} \hline & \multicolumn{2}{c}{SST-2} & \multicolumn{2}{c}{MRPC}"
    r" \\ \hline Method & Acc & F1 & Acc & F1 \\ \hline Full & 94.1 & 94 & 88 & 91 \\"
    r" LoRA & 93 & 92.5 & 87 & 90 \\ \hline \end{tabular}",
}


@pytest.mark.parametrize("name", list(GLUE))
def test_scores_under_data_sets(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, name, GLUE[name])
    assert table.ignored == ()
    full, lora = table.rows
    assert (full.method, lora.method) == ("full", "lora")
    assert dict(lora.scores) == pytest.approx(
        {"sst2 accuracy": 0.93, "sst2 f1": 0.925, "mrpc accuracy": 0.87, "mrpc f1": 0.9}
    )
    assert lora.accuracy is None


@pytest.mark.parametrize(
    "text",
    [
        "method,accuracy,time,memory\n,%,min,GB\nLoRA,93,10,9.5\n",
        "method,accuracy,time,memory\n,(%),(min),[GB]\nLoRA,93,10,9.5\n",
        "method,quality,training,training\n,accuracy,time (min),memory (GB)\nLoRA,93,10,9.5\n",
    ],
)
def test_units_and_figures_in_a_second_header(text: str, tmp_path: Path) -> None:
    (row,) = read(tmp_path, "t.csv", text).rows
    assert (row.accuracy, row.train_seconds) == (0.93, 600)
    assert row.peak_memory
    assert row.peak_memory.value == 9.5e9


def test_a_first_row_of_words_is_no_header(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "method,device,precision\nLoRA,T4,bf16\nIA3,T4,fp16\n")
    assert [row.device for row in table.rows] == ["T4", "T4"]
    table = read(tmp_path, "t.csv", "model,method,acc\nbert-base,LoRA,–\nbert-base,IA3,0.9\n")
    assert len(table.rows) == 2


@pytest.mark.parametrize(
    ("outer", "field", "values"),
    [("SST-2,,RTE,", "data", ["SST-2", "RTE"]), ("BERT,,GPT-2,", "model", ["BERT", "GPT-2"])],
)
def test_figures_under_data_sets_or_models_are_rows_of_each(
    outer: str, field: str, values: list[str], tmp_path: Path
) -> None:
    text = f",{outer}\nMethod,Acc,Time (s),Acc,Time (s)\nFull,94,100,88,10\nLoRA,93,60,87,6\n"
    table = read(tmp_path, "t.csv", text)
    assert table.ignored == ()
    assert [(row.name, getattr(row, field)) for row in table.rows] == [
        ("Full", values[0]), ("Full", values[1]), ("LoRA", values[0]), ("LoRA", values[1]),
    ]  # fmt: skip
    assert [row.accuracy for row in table.rows] == pytest.approx([0.94, 0.88, 0.93, 0.87])
    assert [row.train_seconds for row in table.rows] == [100, 10, 60, 6]
    assert [row.line for row in table.rows] == [0, 1, 2, 3]
    assert all(len(line) == len(table.headers) for line in table.cells)


def test_figures_under_methods_are_rows_of_each(tmp_path: Path) -> None:
    text = "| Dataset | Full FT | | LoRA | |\n|-|-|-|-|-|\n| | Acc | Time (s) | Acc | Time (s) |\n"
    table = read(tmp_path, "t.md", text + "| RTE | 70 | 9 | 68 | 5 |\n| CoLA | 60 | 8 | 59 | 4 |\n")
    assert [(row.method, row.data, row.train_seconds) for row in table.rows] == [
        ("full", "RTE", 9), ("lora", "RTE", 5), ("full", "CoLA", 8), ("lora", "CoLA", 4),
    ]  # fmt: skip
    assert [row.accuracy for row in table.rows] == pytest.approx([0.7, 0.68, 0.6, 0.59])


@pytest.mark.parametrize(
    ("headers", "title"),
    [
        ("Acc (seed 0),Acc (seed 1),Acc (seed 2)", "t.csv"),
        ("acc_seed0,acc_seed1,acc_seed2", "t.csv"),
        ("Accuracy run 1,Accuracy run 2,Accuracy run 3", "t.csv"),
        ("seed 0,seed 1,seed 2", "accuracy_of_three_seeds.csv"),
        ("Run 1,Run 2,Run 3", "accuracy.csv"),
    ],
)
def test_seeds_in_columns_are_read_as_their_mean(headers: str, title: str, tmp_path: Path) -> None:
    table = read(tmp_path, title, f"method,{headers}\nFull,90,92,94\nLoRA,91,,93\n")
    assert [row.accuracy for row in table.rows] == pytest.approx([0.92, 0.92])
    (remark,) = table.ignored
    first, *_, last = headers.split(",")
    assert repr(first) in remark
    assert repr(last) in remark
    assert "seeds: their mean was read as accuracy" in remark


def test_seeds_of_an_unnamed_metric_are_named_as_not_read(tmp_path: Path) -> None:
    text = "method,seed 0,seed 1\nFull,90,92\n"
    table = read(tmp_path, "test_results.csv", text)
    assert table.rows[0].accuracy is None
    assert "'seed 0', 'seed 1'" in table.ignored[0]
    assert "do not say which figure" in table.ignored[0]
    table = read(tmp_path, "t.csv", text, {"seed 0": "accuracy", "seed 1": "accuracy"})
    assert table.rows[0].accuracy == pytest.approx(0.91)


def test_the_deviation_over_seeds_of_the_time(tmp_path: Path) -> None:
    text = "method,Time seed 1 (s),Time seed 2 (s)\nFull,90,94\n"
    (row,) = read(tmp_path, "t.csv", text).rows
    assert row.train_seconds == 92
    assert row.train_seconds_deviation == pytest.approx(2.828, abs=1e-3)


@pytest.mark.parametrize(
    ("header", "score"),
    [
        ("SST-2", "sst2 accuracy"),
        ("CoLA", "cola matthews_correlation"),
        ("RTE (Acc.)", "rte accuracy"),
        ("MRPC (F1)", "mrpc f1"),
        ("STS-B (Pearson)", "stsb pearson"),
        ("SQuAD EM", "squad exact_match"),
        ("ARC-c", "arcc accuracy"),
        ("BoolQ", "boolq accuracy"),
    ],
)
def test_the_metric_of_a_data_sets_column(header: str, score: str, tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", f"method,{header}\nLoRA,61.5\n")
    assert dict(table.rows[0].scores) == {score: pytest.approx(0.615)}
    assert table.ignored == ()


def test_a_data_sets_column_whose_metric_is_not_known_is_named(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "method,MRPC,SST-2,QQP\nLoRA,89,94,90\n")
    assert set(table.rows[0].scores) == {"mrpc", "sst2 accuracy", "qqp"}
    (remark,) = table.ignored
    assert remark.startswith("columns 'MRPC', 'QQP' do not say which metric they hold")


def test_means_and_deviations_under_one_header(tmp_path: Path) -> None:
    text = ",accuracy,accuracy,train_time_s,train_time_s\n,mean,std,mean,std\nmethod,,,,\n"
    table = read(tmp_path, "t.csv", f"{text}LoRA,0.9,0.01,12.5,0.5\n")
    (row,) = table.rows
    assert (row.accuracy, row.train_seconds) == (0.9, 12.5)
    assert "'accuracy std', 'train_time_s std'" in table.ignored[0]


def test_a_deviation_is_no_number_of_hours(tmp_path: Path) -> None:
    """`Std` is German for hours, and short for a standard deviation."""
    table = read(tmp_path, "t.csv", "method,time_std\nLoRA,2\n")
    assert table.rows[0].train_seconds is None
    table = read(tmp_path, "t.csv", "Methode,Dauer (Std)\nLoRA,2\n")
    assert table.rows[0].train_seconds == 7200


def test_headings_in_a_turned_table_are_no_columns(tmp_path: Path) -> None:
    text = "| | Full FT | LoRA |\n|-|-|-|\n| **Setup** | | |\n| Model | bert | bert |\n"
    text += "| **Results** | | |\n| Acc | 0.9 | 0.8 |\n"
    table = read(tmp_path, "t.md", text)
    assert table.ignored == ()
    assert [(row.model, row.accuracy) for row in table.rows] == [("bert", 0.9), ("bert", 0.8)]


def test_methods_under_figures_are_rows_of_each(tmp_path: Path) -> None:
    text = "| Dataset | Accuracy | | Time (s) | |\n|-|-|-|-|-|\n| | Full | LoRA | Full | LoRA |\n"
    text += "| SST-2 | 93 | 92 | 420 | 300 |\n| RTE | 66 | 64 | 21 | 16 |\n"
    table = read(tmp_path, "t.md", text)
    assert table.ignored == ()
    assert [(row.method, row.data, row.train_seconds) for row in table.rows] == [
        ("full", "SST-2", 420), ("lora", "SST-2", 300), ("full", "RTE", 21), ("lora", "RTE", 16),
    ]  # fmt: skip


def test_an_unknown_second_header_is_named_as_a_column(tmp_path: Path) -> None:
    text = "| | | Memory (GB) | |\n|-|-|-|-|\n| Model | Method | bs=1 | bs=8 |\n"
    text += "| opt | LoRA | 6.4 | 12.0 |\n| opt | Full | 21 | 30 |\n"
    table = read(tmp_path, "t.md", text)
    assert [row.method for row in table.rows] == ["lora", "full"]
    (remark,) = table.ignored
    assert "'Memory (GB) bs=1', 'Memory (GB) bs=8'" in remark


def test_seeds_that_ran_out_of_memory_are_no_bad_cells(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "method,time_run1,time_run2\nLoRA,OOM,3 s\nFull,–,5 s\n")
    assert len(table.ignored) == 1
