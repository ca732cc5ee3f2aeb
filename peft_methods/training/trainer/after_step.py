"""Methods that change the model between optimizer steps."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.training.engine import TrainingJob


class AfterStep(TrainerCallback):
    """Trainer callback: call the method after each optimizer step, before gradients are reset."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The Trainer counts the step later."""
        self.job.method.after_step(self.job.model, state.global_step + 1, state.max_steps)
