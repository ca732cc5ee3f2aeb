"""V309 knows the data from a method's name or the table's title where no column names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.audit import check_table
from peft_methods.analysis.external.tables import read_tables

IN_NAMES = "method,accuracy\nFull (MRPC),0.8725\nLoRA (MRPC),0.6838\n"
IN_TITLE = (
    "## RoBERTa on MRPC\n\n| method | accuracy |\n|---|---|\n| Full | 87.25 |\n| LoRA | 68.38 |\n"
)
IN_CAPTION = r"""
\begin{table}\caption{Fine-tuning on MRPC (validation)}
\begin{tabular}{lr} Method & Accuracy \\ Full & 87.25 \\ LoRA & 68.38 \\ \end{tabular}\end{table}
"""
OF_A_COLUMN = IN_TITLE.replace("| method |", "| data | method |").replace("|---|", "|---|---|")
ELSEWHERE = OF_A_COLUMN.replace("| Full", "| RTE | Full").replace("| LoRA", "| RTE | LoRA")


@pytest.mark.parametrize(
    ("name", "text", "subject"),
    [
        ("t.csv", IN_NAMES, "LoRA (MRPC)"),
        ("t.md", IN_TITLE, "LoRA"),
        ("t.tex", IN_CAPTION, "LoRA"),
        ("mrpc_results.csv", IN_NAMES.replace(" (MRPC)", ""), "LoRA"),
        ("t.csv", IN_NAMES.replace(" (MRPC)", ""), None),
        ("t.md", ELSEWHERE, None),
        ("t.md", IN_TITLE.replace("MRPC", "MRPC and RTE"), None),
    ],
)
def test_the_most_frequent_class_of_the_data_that_words_name(
    name: str, text: str, subject: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (table,) = read_tables(tmp_path / name)
    subjects = [one.subject for one in check_table(table.rows) if one.rule == "V309"]
    assert subjects == ([subject] if subject else [])
