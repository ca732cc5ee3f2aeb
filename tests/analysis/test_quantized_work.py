"""V506: what the weights of QLoRA explain, and tables whose rows cannot be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.audit import check_table
from peft_methods.analysis.external.tables import read_tables


def found(folder: Path, text: str) -> dict[str, str]:
    """Return the evidence of a table's findings by rule."""
    (folder / "t.csv").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.csv")
    return {one.rule: one.evidence for one in check_table(table.rows)}


@pytest.mark.parametrize(
    ("header", "lora", "qlora"),
    [
        ("GPU", "4x A100 80GB", "1x A100 80GB"),
        ("GPU", "A100", "RTX 4090"),
        ("GPUs", "8", "1"),
    ],
)
def test_times_and_memory_of_other_devices_are_not_compared(
    header: str, lora: str, qlora: str, tmp_path: Path
) -> None:
    table = (
        "method,model,{header}train time (h),peak memory (GB)\n"
        "LoRA,llama-2-7b,{lora}1.1,70.0\n"
        "QLoRA,llama-2-7b,{qlora}6.3,9.1\n"
    )
    other = found(tmp_path, table.format(header=f"{header},", lora=f"{lora},", qlora=f"{qlora},"))
    assert set(other) == {"V505"}
    assert "V506" in found(tmp_path, table.format(header="", lora="", qlora=""))


@pytest.mark.parametrize(
    ("lora", "qlora", "evidence"),
    [
        # 494 million weights: 2.96 GB at most, and from 2.95 GB to 3.27 GB by the digits.
        ("7.1", "4.2", None),
        (
            "7.100",
            "4.100",
            "3,221 MB less than LoRA, but 4-bit weights save only 1,729 MB",
        ),
        ("8.1", "4.2", "4,027 to 4,349 MB less than LoRA, but 4-bit weights save only 1,729 MB"),
    ],
)
def test_rounded_memories_count_as_their_range(
    lora: str, qlora: str, evidence: str | None, tmp_path: Path
) -> None:
    table = f"method,model,peak (GiB)\nLoRA,qwen2-0.5b,{lora}\nQLoRA,qwen2-0.5b,{qlora}\n"
    assert found(tmp_path, table).get("V506") == evidence


@pytest.mark.parametrize(
    ("lora", "qlora", "rules"),
    [
        ("LoRA (8xA100)", "QLoRA (1xA100)", {"V505"}),
        ("LoRA, 4 GPUs", "QLoRA, 1 GPU", {"V505"}),
        ("LoRA (2x L4)", "QLoRA (L4)", {"V506"}),  # L4 may be the fourth layer
        ("LoRA (A100)", "QLoRA (1x A100)", {"V506"}),
    ],
)
def test_devices_in_the_names_of_methods(
    lora: str, qlora: str, rules: set[str], tmp_path: Path
) -> None:
    table = f'method,train time (h)\n"{lora}",1.1\n"{qlora}",6.3\n'
    assert set(found(tmp_path, table)) == rules
