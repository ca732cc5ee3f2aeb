"""Cells and headers as people write them: each is read as meant, or costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.cell_text import figure_text, without_latex, without_markup
from peft_methods.analysis.external.tables import PlainTable, TableError, read_tables
from peft_methods.utils.units import UNITS, UnitError, parse


def read(folder: Path, text: str, mapping: dict[str, str] | None = None) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv", None, mapping)
    return table


def one(folder: Path, header: str, cell: str) -> ResultRow:
    table = read(folder, f'method,{header}\nLoRA,"{cell}"\n')
    assert table.ignored == ()
    return table.rows[0]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("162K†", 162e3),
        ("~1M", 1e6),
        ("0.8 M", 0.8e6),
        ("887,042*", 887_042),
        ("786K [3]", 786e3),
        ("**786K**", 786e3),
        ("1.2B", 1.2e9),
        ("1.1亿", 1.1e8),
        ("29.6万", 296e3),
        ("739,586 (1.09%)", 739_586),
        ("1.09% (0.74M)", 0.74e6),
        ("739,586 / 67,694,596 (1.09%)", 739_586),
        ("2.6M params", 2.6e6),
        ("887042ᵃ", 887_042),
        ("<b>887,042</b>", 887_042),
        ("887,042<sup>†</sup>", 887_042),
    ],
)
def test_counts(cell: str, value: float, tmp_path: Path) -> None:
    trainable = one(tmp_path, "Trainable Params", cell).trainable
    assert trainable
    assert trainable.value == value


def test_a_count_with_its_share_fills_both(tmp_path: Path) -> None:
    row = one(tmp_path, "Trainable Params", "739,586 / 67,694,596 (1.09%)")
    assert row.trainable_share
    assert row.total
    assert (row.trainable_share.value, row.total.value) == (pytest.approx(0.0109), 67_694_596)
    share = one(tmp_path, "Params", "0.42%").trainable_share
    assert share
    assert share.value == pytest.approx(0.0042)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("1:23:45", 5025),
        ("0:47:10", 2830),
        ("47:10", 2830),
        ("2h 13m", 7980),
        ("1h05", 3900),
        ("1 hour 5 minutes", 3900),
        ("19m51s", 1191),
        ("1 day, 2:00:00", 93_600),
        ("95 s*", 95),
        ("24.84 min (T4)", 1490.4),
        ("1327 (s)", 1327),
    ],
)
def test_durations(cell: str, seconds: float, tmp_path: Path) -> None:
    assert one(tmp_path, "Train time", cell).train_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("**96.2**", 0.962),
        ("96.1*", 0.961),
        ("93.4 ± 0.4", 0.934),
        ("93.4% (best)", 0.934),
        ("93.4 (±0.2)", 0.934),
        ("$\\mathbf{93.4}$", 0.934),
        ("✅ 93.4%", 0.934),
        ("93.4 (+0.3)", 0.934),
        ("96.2¹", 0.962),
    ],
)
def test_accuracies(cell: str, value: float, tmp_path: Path) -> None:
    assert one(tmp_path, "Accuracy", cell).accuracy == pytest.approx(value)


@pytest.mark.parametrize(
    "cell", ["N/A (Skipped)", "TBD", "—", "–", "n/a", "", "N/A: no time", "not reported", "--"]
)
def test_missing_cells_are_missing_in_figures_and_texts(cell: str, tmp_path: Path) -> None:
    row = read(tmp_path, f'method,acc,hardware,model\nLoRA,"{cell}","{cell}","{cell}"\n').rows[0]
    assert (row.accuracy, row.device, row.model) == (None, None, "")


@pytest.mark.parametrize("cell", ["OOM", "oom (24 GB)", "Out of memory", "CUDA out-of-memory"])
def test_out_of_memory_is_a_result(cell: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,peak memory,acc\nFull,{cell},\nLoRA,19.7 GB,0.62\n")
    assert table.ignored == ()
    assert [row.out_of_memory for row in table.rows] == [True, False]
    assert table.rows[0].peak_memory is None


def test_a_range_keeps_its_ends_or_is_no_value(tmp_path: Path) -> None:
    memory = one(tmp_path, "VRAM", "10-12 GB").peak_memory
    assert memory
    assert memory.low < 10e9 + 1
    assert memory.high > 12e9 - 1
    table = read(tmp_path, "method,epochs\nLoRA,3-5\n")
    assert table.rows[0].epochs is None
    assert "'3-5' is a range; write one value" in table.ignored[0]


def test_one_bad_cell_costs_one_cell(tmp_path: Path) -> None:
    table = read(tmp_path, "method,acc,time\nLoRA,high,3 min\nIA3,0.9,3 parsecs\nFull,930,-1 s\n")
    lora, ia3, full = table.rows
    assert (lora.accuracy, lora.train_seconds, ia3.accuracy) == (None, 180, 0.9)
    assert (ia3.train_seconds, full.train_seconds) == (None, None)
    assert len(table.ignored) == 4


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("method,acc\nLoRA,0.93\nIA3,91\n", "row 1: '0.93' stands among percentages"),
        ("method,acc (%)\nLoRA,0.93\nIA3,0.91\n", "'0.93' may be a share, but the header says %"),
        ("method,trainable share\nLoRA,0.59\n", "'0.59' may be a share or percent"),
        ("method,acc\nLoRA,930\n", "'930' is more than 100 %"),
        ("method,acc\nLoRA,-0.9\n", "'-0.9' is below zero"),
        ("method,time\nLoRA,3 parsecs\n", "unknown unit 'parsecs'. Did you mean 'secs'?"),
        ("method,acc,accuracy\nLoRA,0.8,0.9\n", "'accuracy' and 'acc' both mean accuracy"),
        ("method,acc\nLoRA,0.9\nIA3,0.9,1\n", "line 3 has 3 fields, but the header has 2"),
        ("method,acc\nLoRA,0.9\n,0.8\n", "row 2 names no method and was not read"),
        ("method,colour,acurracy\nLoRA,red,1\n", "'acurracy' (did you mean 'accuracy'?)"),
    ],
)
def test_what_is_not_read_is_said_once(text: str, remark: str, tmp_path: Path) -> None:
    said = read(tmp_path, text).ignored
    assert sum(remark in line for line in said) == 1


def test_many_bad_cells_of_a_column_are_one_remark(tmp_path: Path) -> None:
    rows = "".join(f"LoRA {n},words\n" for n in range(9))
    (remark,) = read(tmp_path, f"method,acc\n{rows}").ignored
    assert "9 of 9 cells could not be read and are missing, the first in row 1" in remark


@pytest.mark.parametrize(
    ("header", "cell", "field", "value"),
    [
        ("# of Trainable Params.", "0.8M", "trainable", 0.8e6),
        ("num_trainable_params", "9175040", "trainable", 9_175_040),
        ("#Params (M)", "0.8", "trainable", 0.8e6),
        ("All Params", "124M", "total", 124e6),
        ("Trainable %", "0.59", "trainable_share", 0.0059),
        ("accelerator_memory_max", "22292725760", "peak_memory", 22_292_725_760),
        ("Peak VRAM [GiB]", "2", "peak_memory", 2**31),
        ("GPU Memory/MB", "2000", "peak_memory", 2e9),
        ("显存 (GB)", "2", "peak_memory", 2e9),
        ("Training runtime", "24 min", "train_seconds", 1440),
        ("time_min", "24", "train_seconds", 1440),
        ("训练时间(分钟)", "24", "train_seconds", 1440),
        ("Trainingszeit (h)", "2", "train_seconds", 7200),
        ("train_runtime", "33.5", "train_seconds", 33.5),
        ("Micro batch size", "16", "batch_size", 16),
        ("lora_r", "r=16", "rank", 16),
        ("Energy (kWh)", "2", "energy_joules", 7.2e6),
        ("Energy", "500 Wh", "energy_joules", 1.8e6),
        ("samples/s", "81.5", "samples_per_second", 81.5),
        ("Max steps", "500", "total_steps", 500),
        ("Seed", "42", "seed", 42),
        ("LR", "2 × 10^-5", "learning_rate", 2e-5),
        ("params.learning_rate", "2e-5", "learning_rate", 2e-5),
        ("准确率", "93%", "accuracy", 0.93),
    ],
)
def test_headers(header: str, cell: str, field: str, value: float, tmp_path: Path) -> None:
    found = getattr(one(tmp_path, header, cell), field)
    assert getattr(found, "value", found) == pytest.approx(value)


@pytest.mark.parametrize(
    ("header", "cell", "score", "value"),
    [
        ("F1", "0.902", "f1", 0.902),
        ("Macro-F1 (%)", "90.2", "f1", 0.902),
        ("EM", "81", "exact_match", 0.81),
        ("ROUGE-L", "41.2", "rougeL", 0.412),
        ("BLEU", "27.3", "bleu", 0.273),
        ("MCC", "-0.02", "matthews_correlation", -0.02),
        ("PPL", "8.1", "perplexity", 8.1),
        ("Spearman", "0.9", "spearman", 0.9),
        ("SST-2", "94.1", "sst2 accuracy", 0.941),
        ("GSM8K (acc)", "47.8%", "gsm8k accuracy", 0.478),
        ("Precision", "0.87", "precision_score", 0.87),
    ],
)
def test_other_figures_of_quality(
    header: str, cell: str, score: str, value: float, tmp_path: Path
) -> None:
    assert dict(one(tmp_path, header, cell).scores) == {score: pytest.approx(value)}


@pytest.mark.parametrize(
    "header",
    [
        "eval_runtime",
        "Eval Time (s)",
        "Eval time per epoch (s)",
        "test loss",
        "Speedup",
        "accelerator_memory_reserved_avg",
        "Inference time (s)",
        "Memory saved (GB)",
    ],
)
def test_figures_about_something_else_are_not_taken(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header}\nLoRA,3\n")
    assert table.rows[0] == read(tmp_path, "method\nLoRA\n").rows[0]
    assert table.ignored[0].startswith(f"unknown column, not read: {header!r}")


def test_parameters_beside_trainable_ones_are_all_of_them(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "method,Params,Trainable Params\nLoRA,124M,0.8M\n").rows
    assert row.total
    assert row.trainable
    assert (row.total.value, row.trainable.value) == (124e6, 0.8e6)


@pytest.mark.parametrize(
    "header", ["Configuration", "Algorithm", "peft_type", "Setup", "Model", "X"]
)
def test_the_column_of_methods_is_found_by_name_or_cells(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"{header},acc\nLoRA,0.9\nIA3,0.8\n")
    assert [row.method for row in table.rows] == ["lora", "ia3"]


def test_several_rows_of_a_method_stay(tmp_path: Path) -> None:
    text = "Model,Method,seed,acc\na,LoRA,1,0.8\na,LoRA,2,0.9\nb,LoRA,1,0.7\n"
    rows = read(tmp_path, text).rows
    assert [(row.model, row.seed, row.accuracy, row.line) for row in rows] == [
        ("a", 1, 0.8, 0), ("a", 2, 0.9, 1), ("b", 1, 0.7, 2),
    ]  # fmt: skip


def test_settings_in_a_methods_name(tmp_path: Path) -> None:
    text = 'method\n"LoRA (r=8), Q+K+V"\nPrefix tuning (20 tokens)\n'
    lora, prefix = read(tmp_path, text).rows
    assert (lora.rank, lora.targets) == (8, ("query", "key", "value"))
    assert (prefix.rank, prefix.virtual_tokens) == (None, 20)


def test_columns_by_hand(tmp_path: Path) -> None:
    text = "Kind,Footprint (GB),acc\nLoRA,3.5,0.9\n"
    (row,) = read(tmp_path, text, {"Footprint (GB)": "peak_memory", "Kind": "method"}).rows
    assert row.peak_memory
    assert row.peak_memory.value == 3.5e9
    with pytest.raises(TableError, match=r"unknown field 'peak_memry'.*Did you mean 'peak_memory'"):
        read(tmp_path, text, {"Footprint (GB)": "peak_memry"})
    with pytest.raises(TableError, match=r"no column 'Footprint'. Did you mean 'Footprint \(GB\)'"):
        read(tmp_path, text, {"Footprint": "peak_memory"})


@given(st.text(max_size=20), st.sampled_from(list(UNITS)))
def test_cleaning_and_parsing_any_text_raises_nothing_but_unit_error(text: str, kind: str) -> None:
    try:
        parse(figure_text(without_markup(text)), kind)
        without_latex(text)
    except UnitError:
        pass


marks = st.sampled_from(
    ["{}", "**{}**", "{}†", "{}*", "<b>{}</b>", r"\textbf{{{}}}", "${}$", "{} (best)"]
)


@given(st.decimals(0, 1, places=4), marks)
def test_a_written_figure_is_read_back(value: object, mark: str) -> None:
    quantity = parse(figure_text(without_markup(mark.format(value))), "share")
    assert quantity
    assert quantity.value == float(str(value))


@given(st.integers(0, 10**7))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    hours, rest = divmod(seconds, 3600)
    text = f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    quantity = parse(text, "seconds")
    assert quantity
    assert quantity.value == seconds
    assert quantity.low <= seconds <= quantity.high
