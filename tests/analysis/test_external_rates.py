"""Figures per epoch, step or GPU: turned into base figures, or named as not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, read_tables


def read(folder: Path, text: str) -> PlainTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv")
    return table


@pytest.mark.parametrize(
    ("header", "cell", "seconds"),
    [
        ("Time per epoch (s)", "30", 90),
        ("Time / epoch", "30 s", 90),
        ("s/epoch", "30", 90),
        ("sec per epoch", "30", 90),
        ("min per epoch", "2", 360),
        ("Time (min/epoch)", "2", 360),
        ("Epoch time (min)", "2", 360),
        ("Training time per epoch", "0:02:00", 360),
        ("hours/epoch", "1", 10_800),
        ("Avg. time per epoch (min)", "2", 360),
    ],
)
def test_the_time_of_an_epoch_times_the_epochs(
    header: str, cell: str, seconds: float, tmp_path: Path
) -> None:
    table = read(tmp_path, f"method,{header},epochs\nLoRA,{cell},3\n")
    assert table.ignored == ()
    assert table.rows[0].train_seconds == seconds
    assert table.fields[header] == "train_seconds"
    table = read(tmp_path, f"method,{header}\nLoRA,{cell}\n")
    assert table.rows[0].train_seconds is None
    (remark,) = table.ignored
    assert f"column {header!r} is the time of one epoch, and the number of epochs" in remark
    table = read(tmp_path, f"method,{header},train time (s)\nLoRA,{cell},900\n")
    assert table.rows[0].train_seconds == 900
    assert "not read beside the training time" in table.ignored[0]


@pytest.mark.parametrize(
    ("header", "other", "count", "seconds"),
    [
        ("GPU hours", "#GPUs", "4", 900),
        ("GPU-h", "GPUs", "4", 900),
        ("Total GPU hours", "Num GPUs", "1", 3600),
        ("A100-hours", "GPU count", "2", 1800),
        ("GPU hours", "GPU", "4x A100", 900),
        ("GPU hours", "GPUs", "4 × A100", 900),
        ("GPU hours", "Hardware", "8 GPUs", 450),
    ],
)
def test_gpu_hours_over_the_gpus(
    header: str, other: str, count: str, seconds: float, tmp_path: Path
) -> None:
    table = read(tmp_path, f"method,{header},{other}\nLoRA,1,{count}\n")
    assert table.ignored == ()
    assert table.rows[0].train_seconds == seconds
    table = read(tmp_path, f"method,{header}\nLoRA,1\n")
    assert table.rows[0].train_seconds is None
    assert "the number of GPUs is not given: not read" in table.ignored[0]


@pytest.mark.parametrize(
    ("header", "cell"),
    [
        ("Memory per GPU (GB)", "9.5"),
        ("GB/GPU", "9.5"),
        ("Peak memory (GB/GPU)", "9.5"),
        ("VRAM / GPU", "9.5 GB"),
        ("GB per GPU", "9.5"),
        ("Peak GPU memory per device (MB)", "9500"),
    ],
)
def test_the_memory_of_one_gpu(header: str, cell: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header},#GPUs\nLoRA,{cell},8\n")
    assert table.ignored == ()
    assert table.rows[0].peak_memory
    assert table.rows[0].peak_memory.value == 9.5e9
    table = read(tmp_path, f"method,{header},#GPUs\nLoRA,{cell},64\n")
    assert table.rows[0].peak_memory is None
    assert "not read where more than 8 GPUs" in table.ignored[0]


def test_the_number_of_gpus_belongs_to_the_device(tmp_path: Path) -> None:
    table = read(tmp_path, "method,GPU,#GPUs\nLoRA,A100,4\nIA3,A100,1\nFull,2x A100,2\n")
    assert [row.device for row in table.rows] == ["4 x A100", "A100", "2x A100"]


@pytest.mark.parametrize(
    ("header", "cell", "seconds"), [("s/step", "0.5", 0.5), ("ms/it", "500", 0.5)]
)
def test_the_time_of_a_step(header: str, cell: str, seconds: float, tmp_path: Path) -> None:
    assert read(tmp_path, f"method,{header}\nLoRA,{cell}\n").rows[0].step_seconds == seconds


@pytest.mark.parametrize(
    "header",
    ["it/s", "steps/s", "epochs/hour", "Best epoch", "samples/s/GPU", "Inference time per GPU (s)",
     "Loss per epoch", "Cost per GPU hour ($)", "tokens/s per GPU"],
)  # fmt: skip
def test_other_rates_are_named_as_unknown(header: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"method,{header},epochs\nLoRA,3,2\n")
    assert table.ignored[0].startswith(f"unknown column, not read: {header!r}")
