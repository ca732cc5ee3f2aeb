"""What a trained model costs in use: as trained, and merged into its base."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from torch import nn

from peft_methods.data.token_rows import TokenRows
from peft_methods.models import ranks
from peft_methods.profiling.latency import InferenceCost, measure_inference
from peft_methods.profiling.profiler import Profiler
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.collate import Collator


def inference_metrics(
    run: RunSpec, model: nn.Module, rows: TokenRows, collate: Collator, profiler: Profiler
) -> dict[str, float]:
    """Time the trained model in use, as trained and merged. The model cannot be used afterwards.

    It is timed on one GPU. A model that is divided among several is not timed.
    """
    if run.role != "main" or not ranks.is_first() or ranks.is_sharded(model):
        return {}
    timed = partial(
        measure_inference,
        rows=rows,
        collate=collate,
        precision=run.recipe.budget.precision,
        synchronize=profiler.synchronize,
    )
    found = _named("", timed(model))
    merged = run.method.merge(model)
    return found if merged is None else found | _named("merged_", timed(merged))


def _named(prefix: str, cost: InferenceCost | None) -> dict[str, float]:
    if cost is None:
        return {}
    return {f"{prefix}{name}": value for name, value in asdict(cost).items()}
