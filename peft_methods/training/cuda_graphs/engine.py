"""The cuda_graphs engine: the Trainer's loop, with each training step replayed as a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_methods.training.phases import EnginePhase

if TYPE_CHECKING:
    from peft_methods.recipes.schema import Budget
    from peft_methods.training.engine import Checkpointer, Observer, Training, TrainingJob


CAPTURE = EnginePhase(
    name="capture",
    title="Compiling and capturing",
    activity="capturing the training step",
    advice='The trainer engine needs less memory: set engine = "trainer".',
    setting="engine",
    keeps_memory=True,  # a captured step has a memory pool of the engine's
)


class CudaGraphsEngine:
    """Replay whole training steps, so that a GPU does not wait for Python between kernels."""

    name = "cuda_graphs"
    about = "its steps as CUDA graphs"
    aliases = ("graphed",)  # its name in records of schema version 1
    devices = ("cuda",)
    priority = 1
    fallback = "trainer"
    phases = (CAPTURE,)
    trains_on_several_gpus = False
    packs_decoders = True
    replays_steps = True

    def unsupported(self, config: Any, budget: Budget | None = None) -> str | None:
        """Return why it cannot: it trains encoders and decoders, on one GPU.

        What else cannot be captured shows when it is captured (`EngineUnfit`).
        """
        from peft_methods.training.cuda_graphs.fitness import model_problem

        if budget is not None and budget.gpus > 1:
            return (
                f"the {self.name} engine captures the steps of one GPU: the {self.fallback} engine "
                f"trains on several"
            )
        if (problem := model_problem(config)) is None:
            return None
        return (
            f"the {self.name} engine captures the steps of encoders and decoders, and {problem}: "
            f"the {self.fallback} engine trains it"
        )

    def train(
        self, job: TrainingJob, observer: Observer, checkpointer: Checkpointer | None = None
    ) -> Training:
        """Train the job's model. See `Engine.train`. Raises `EngineUnfit` if capturing fails."""
        from dataclasses import replace

        from peft_methods.training.cuda_graphs.compile import compiled_graph_counts
        from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
        from peft_methods.training.trainer.loop import train

        result = train(job, observer, checkpointer, trainer_class=CudaGraphsTrainer)
        return replace(result, compiled_graphs=compiled_graph_counts())
