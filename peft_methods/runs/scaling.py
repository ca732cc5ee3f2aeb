"""Runs over several GPUs beside the same run on one: checkpoints, and how well they scale."""

from __future__ import annotations

from dataclasses import replace

from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

EFFICIENCY = "scaling_efficiency"
SAME = ("device_name", "packages", "source", "weights_sha256")  # of both environments


def on_one_gpu(run: RunSpec) -> RunSpec:
    """Return the same run on one GPU."""
    if run.recipe.budget.gpus == 1:
        return run
    budget = replace(run.recipe.budget, gpus=1, strategy=None)
    return replace(
        run,
        recipe=replace(run.recipe, budget=budget),
        prerequisites=tuple(map(on_one_gpu, run.prerequisites)),
    )


def with_efficiency(record: Record, store: Store) -> Record:
    """Return a record with the scaling efficiency, if the store has the same run on one GPU.

    It is the throughput over that of one GPU and the number of GPUs: 1 is perfect.
    """
    gpus = record.spec.recipe.budget.gpus
    if gpus == 1 or record.status != "ok":
        return record
    alone = _newest_alone(record, store)
    both = [one.metrics.get("samples_per_second") for one in (record, alone) if one is not None]
    together, single = (*both, None, None)[:2]
    found = together / (gpus * single) if together and single else None
    return replace(record, metrics={**record.metrics, EFFICIENCY: found})


def _newest_alone(record: Record, store: Store) -> Record | None:
    """Return the newest record of the same run on one GPU of the same kind and code, or None.

    Its engine may be the one that took another one's place.
    """
    wanted = replace(on_one_gpu(record.spec), fallback_from="")
    found = [
        one
        for one in store.records()[0]
        if one.status == "ok"
        and one.recipe_name == record.recipe_name
        and replace(one.spec, fallback_from="") == wanted
        and all(one.environment.get(name) == record.environment.get(name) for name in SAME)
    ]
    return max(found, key=lambda one: one.finished, default=None)
