"""On a GPU: records have the estimate, and it is near what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peft_methods.analysis.predicted import errors_of
from peft_methods.api import compare
from peft_methods.runs.predicted import AFTER, BEFORE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.embedded,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),
]
SMALL = ("data.train=256", "data.validation=64", "data.test=64", "budget.epochs=1")


@pytest.mark.parametrize(("fit", "made"), [("memory=100GB", BEFORE), (None, AFTER)])
def test_records_have_an_estimate_near_the_measured_peak(
    fit: str | None, made: str, tmp_path: Path
) -> None:
    found = compare(
        "embedded",
        methods=["full", "lora", "qlora"],
        seeds=1,
        settings=SMALL,
        fit=fit,
        results=tmp_path / "results",
        progress=False,
    )
    for record in found.records:
        assert record.status == "ok", record.message
        assert record.predicted is not None
        assert record.predicted.made == made
        peak = next(one for one in errors_of(record) if one.metric == "peak_memory_bytes")
        assert abs(peak.share) < 0.1, (record.method_name, peak)


def test_limit_on_memory_leaves_out_what_does_not_fit(tmp_path: Path) -> None:
    found = compare(
        "embedded",
        methods=["lora"],
        seeds=1,
        settings=SMALL,
        fit="memory=1MB",
        results=tmp_path / "results",
        progress=False,
    )
    (record,) = found.records
    assert record.status == "skipped"
    assert "more than memory=1MB" in record.message
