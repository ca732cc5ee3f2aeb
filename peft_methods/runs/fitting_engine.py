"""The engine of a run whose model the requested engine cannot train."""

from __future__ import annotations

from dataclasses import replace

from peft_methods.models.config import load_config
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.training.engine import replay_problem
from peft_methods.training.registry import engine_of


def with_fitting_engine(run: RunSpec, paths: RunPaths) -> tuple[RunSpec, RunPaths]:
    """Replace an engine that cannot train such a model by its fallback, with a note."""
    config = load_config(run.recipe.model, TASKS[run.recipe.task].head)
    engine = engine_of(run.engine)
    reason = engine.unsupported(config, run.recipe.budget)
    if reason is None and engine.replays_steps and (problem := replay_problem(run.method)):
        reason = (
            f"{problem}, and the {engine.name} engine replays steps: the {engine.fallback} engine "
            f"trains it"
        )
    if reason is None:
        return run, paths
    return run.with_fallback_engine(), replace(paths, engine_note=reason)
