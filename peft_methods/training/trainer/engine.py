"""The trainer engine: Hugging Face's Trainer, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_methods.recipes.schema import Budget
    from peft_methods.training.engine import Checkpointer, Observer, Training, TrainingJob


class TrainerEngine:
    """Run the Trainer's own steps. Every other engine is compared with this one."""

    name = "trainer"
    about = "the Trainer"
    aliases = ("stock",)  # its name in records of schema version 1
    devices = ("cpu", "cuda")
    priority = 0
    fallback = None
    phases = ()
    trains_on_several_gpus = True
    packs_decoders = False
    replays_steps = False

    def unsupported(self, config: Any, budget: Budget | None = None) -> str | None:
        """Return None: the Trainer trains everything."""
        return None

    def train(
        self, job: TrainingJob, observer: Observer, checkpointer: Checkpointer | None = None
    ) -> Training:
        """Train the job's model. See `Engine.train`."""
        from peft_methods.training.trainer.loop import RunTrainer, train

        if job.recipe.budget.gpus > 1:
            from peft_methods.training.distributed.trainer import RankTrainer

            return train(job, observer, checkpointer, trainer_class=RankTrainer)
        return train(job, observer, checkpointer, trainer_class=RunTrainer)
