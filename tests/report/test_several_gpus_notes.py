"""Notes, setup line and paper of runs over several GPUs, and how well they scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import make_record
from peft_methods.report.paper.setup import budget_paragraph
from peft_methods.report.text.setup import budget_text
from peft_methods.report.text.several_gpus import several_gpus_notes
from peft_methods.runs.record import Record
from peft_methods.runs.scaling import with_efficiency
from peft_methods.runs.store import Store

RANKS = [{"peak_memory_bytes": 2**30, "gpu": None}, {"peak_memory_bytes": 2**29, "gpu": None}]


def over_two(record: Record, **metrics: Any) -> Record:
    """Return the record of the same run over two GPUs."""
    recipe = record.spec.recipe
    budget = replace(recipe.budget, gpus=2, strategy="fsdp")
    return replace(
        record,
        spec=replace(record.spec, recipe=replace(recipe, budget=budget)),
        fingerprint=f"{record.fingerprint}-2",
        metrics={**record.metrics, **metrics},
        environment={**record.environment, "ranks": RANKS},
    )


def test_a_note_has_the_memory_of_each_gpu_and_what_is_known_of_time() -> None:
    alone = make_record()
    assert several_gpus_notes([alone]) == []
    (unknown,) = several_gpus_notes([alone, over_two(alone, communication_seconds=0.004)])
    assert unknown.startswith("LoRA on 2 processes of the CPU (fsdp): peak memory of each 1,024.0")
    assert "communication 4.0 ms a step; scaling efficiency unknown" in unknown
    (known,) = several_gpus_notes([over_two(alone, scaling_efficiency=0.925)])
    assert known.endswith("scaling efficiency 92.5 %.")


def test_setup_and_paper_say_over_how_many_gpus_a_run_is() -> None:
    recipe = over_two(make_record()).spec.recipe
    assert "each run over 2 processes (fsdp)" in budget_text(recipe, ())
    assert "A run takes two GPUs, each with a part of the model" in budget_paragraph(recipe, ())
    assert "processes" not in budget_text(make_record().spec.recipe, ())


def test_efficiency_is_that_beside_the_newest_run_on_one_gpu(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    alone = make_record()
    together = over_two(alone, samples_per_second=120.0)
    assert with_efficiency(together, store).metrics["scaling_efficiency"] is None
    store.write(replace(make_record(seed=1), finished=1.0))  # another run
    store.write(alone)
    assert with_efficiency(together, store).metrics["scaling_efficiency"] == 0.75
    for name in ("device_name", "packages", "source", "weights_sha256"):
        other = replace(together, environment={**together.environment, name: "other"})
        assert with_efficiency(other, store).metrics["scaling_efficiency"] is None
    assert with_efficiency(alone, store) is alone
