"""The example notebook, executed as readers would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "compare.ipynb"
QUICK = """
METHODS, SEEDS, RESULTS = ["head_only", "ia3"], 1, "results"
SETTINGS = ["data.train=64", "data.validation=32", "data.test=64", "budget.epochs=1",
            "expect.margin_over_majority=0.0"]
"""


def outputs_of(run: Any, kind: str) -> list[str]:
    """Return the outputs of a notebook cell in one of the formats that notebooks support."""
    return [str(output.data[kind]) for output in run.outputs if kind in output.get("data", {})]


@pytest.mark.embedded
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Jupyter's own packages
@pytest.mark.slow
def test_notebook_displays_table_charts_and_confusion_matrices(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), (
        "the notebook must be stored without outputs"
    )
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    )
    parameters.source = QUICK
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    table, charts, matrices, frame = [
        cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs
    ][-4:]
    assert "| IA3 " in outputs_of(table, "text/markdown")[0]
    assert len(outputs_of(charts, "image/svg+xml")) >= 5
    assert len(outputs_of(matrices, "image/svg+xml")) == 2
    assert "peak_memory_bytes" in outputs_of(frame, "text/html")[0]
