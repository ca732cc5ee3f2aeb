"""One run over two real GPUs: it trains as one on one GPU does, in less memory or less time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rank_builders import losses

from peft_methods.api import compare
from peft_methods.runs.record import Record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.embedded,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
    pytest.mark.timeout(900),
]
METHODS = ("full", "lora", "qlora")
FIGURES = ("communication_seconds", "energy_joules", "scaling_efficiency")
SMALL = (
    "data.train=160",  # long enough for the driver's counter of energy
    "data.validation=16",
    "data.test=16",
    "budget.epochs=2",
    "budget.batch_size=16",
    "expect.margin_over_majority=0.0",
    "methods.lora.dropout=0.0",  # each GPU draws masks of its own, other than one GPU's
    "methods.qlora.dropout=0.0",
)


def records_of(folder: Path, *settings: str, methods: tuple[str, ...]) -> dict[str, Record]:
    done = compare(
        "embedded_decoder",
        methods=methods,
        seeds=1,
        settings=[*SMALL, *settings],
        results=folder,
        engine="trainer",
        workers=2,
        progress=False,
    )
    return {record.method_name: record for record in done.records if record.role == "main"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """Train each method on one GPU. Return the folder of the results, and the records."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, records_of(folder, methods=METHODS)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_train_as_one_does(strategy: str, alone: tuple[Path, dict[str, Record]]) -> None:
    folder, of_one = alone
    over = ("budget.gpus=2", f"budget.strategy={strategy}")
    together = records_of(folder, *over, methods=METHODS)
    for name in METHODS:
        one, two = of_one[name], together[name]
        assert (one.status, two.status) == ("ok", "ok"), (one.message, two.message)
        tolerance = 2e-2 if name == "qlora" else 2e-3  # 4-bit products round to half precision
        assert losses(two) == pytest.approx(losses(one), rel=tolerance)
        figures = {figure: two.metrics[figure] for figure in FIGURES}
        assert all(value and value > 0 for value in figures.values()), (name, figures)
        assert len(two.environment["ranks"]) == 2
        assert two.evidence == one.evidence
    if strategy == "fsdp":
        assert together["full"].metrics["peak_memory_bytes"] < (
            0.8 * of_one["full"].metrics["peak_memory_bytes"]
        )


def test_deterministic_runs_over_two_gpus_repeat_to_the_bit(tmp_path: Path) -> None:
    found = [
        compare(
            "embedded_decoder",
            methods=("lora",),
            seeds=1,
            settings=[*SMALL, "budget.gpus=2"],
            results=tmp_path / name,
            workers=2,
            deterministic=True,
            progress=False,
        ).records
        for name in ("a", "b")
    ]
    assert [one.status for done in found for one in done] == ["ok", "ok"], found[0][0].message
    assert losses(found[0][0]) == losses(found[1][0])
