"""Save and restore the full training state, so that an interrupted run resumes after any epoch."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.models import ranks
from peft_methods.models.parameters import (
    assign_parameters,
    on_first_host,
    save_trainable,
    trainable_tensors,
)
from peft_methods.training.engine import Checkpointer, Observer, TrainingState
from peft_methods.training.evaluation import EpochEvaluator

TRAINER_STATE = "trainer_state.json"  # the file name that the Trainer reads


class ResumableTrainer(Protocol):
    """The members of a trainer that checkpointing uses.

    `order` draws the order of batches. `resumed` is a loaded state that is not fully restored yet.
    """

    model: Any
    optimizer: Any
    lr_scheduler: Any
    state: Any
    order: torch.Generator
    resumed: TrainingState | None

    def loss_scale(self) -> dict[str, Any]:
        """Return the fp16 loss scale as JSON values; empty for other precisions."""

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Restore the loss scale returned by `loss_scale`."""


class CheckpointCallback(TrainerCallback):
    """Trainer callback: save the training state after each epoch.

    Add it after the `EpochEvaluator`.
    """

    def __init__(
        self,
        trainer: ResumableTrainer,
        evaluator: EpochEvaluator,
        observer: Observer,
        checkpointer: Checkpointer,
    ) -> None:
        self.trainer, self.evaluator, self.observer, self.checkpointer = (
            trainer,
            evaluator,
            observer,
            checkpointer,
        )

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the state. The time is not counted as training time."""
        self.observer.enter("save")
        is_over = (
            control.should_training_stop or len(self.evaluator.results) == args.num_train_epochs
        )
        state = _snapshot(self.trainer, self.evaluator, self.observer, is_over=is_over)
        if ranks.is_first():
            self.checkpointer.save(state)
        self.observer.enter("evaluate")


def _snapshot(
    trainer: ResumableTrainer, evaluator: EpochEvaluator, observer: Observer, *, is_over: bool
) -> TrainingState:
    """Return the state after the last evaluated epoch.

    If training is over, early or not, the Trainer's step count is set to all steps, so that it does
    not train further. Only rank 0's is complete; nothing in it depends on the number of ranks but
    the random state of each.
    """
    optimizer = trainer.optimizer.state_dict()
    moments = {
        f"{index}.{name}": tensor
        for index, values in optimizer["state"].items()
        for name, tensor in values.items()
    }
    is_newest = evaluator.best is evaluator.results[-1] or not ranks.is_first()
    tensors = {
        "weights": trainable_tensors(trainer.model),
        "best": {} if is_newest else load_file(evaluator.best_file),
        "optimizer": on_first_host(moments),
        "random": _random_tensors(trainer.order),
    }
    steps = trainer.state.max_steps if is_over else trainer.state.global_step
    values = {
        "trainer": {**asdict(trainer.state), "global_step": steps},
        "evaluator": evaluator.state(),
        "rates": [float(group["lr"]) for group in optimizer["param_groups"]],
        "schedule": trainer.lr_scheduler.state_dict(),
        "loss_scale": trainer.loss_scale(),
        "random": _random_values(),
        "measured": observer.measured(),
    }
    flat = {
        f"{part}.{name}": tensor
        for part, tensors in tensors.items()
        for name, tensor in tensors.items()
    }
    return TrainingState(len(evaluator.results), flat, values)


def resume(
    trainer: ResumableTrainer,
    evaluator: EpochEvaluator,
    observer: Observer,
    checkpointer: Checkpointer,
    folder: Path,
) -> str | None:
    """Restore weights, evaluations and measurements from the newest checkpoint.

    Returns the folder with the Trainer's state file, or None if there is no checkpoint. The state
    of objects that the Trainer creates later (optimizer, schedule, random generators) waits in
    `trainer.resumed`.
    """
    observer.enter("save")
    state = _newest(checkpointer)
    if state is None:
        return None
    assign_parameters(trainer.model, state.part("weights"))
    evaluator.restore(state.values["evaluator"])
    best = state.part("best")
    if not best:
        save_trainable(trainer.model, evaluator.best_file)
    elif ranks.is_first():
        save_file(best, evaluator.best_file)
    observer.take_over(state.values["measured"])
    if ranks.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TRAINER_STATE).write_text(json.dumps(state.values["trainer"]), encoding="utf-8")
    ranks.wait_for_all()
    trainer.resumed = state
    return str(folder)


def _newest(checkpointer: Checkpointer) -> TrainingState | None:
    """Return the newest state. Rank 0 looks first, since looking removes what is damaged."""
    state = checkpointer.newest() if ranks.is_first() else None
    ranks.wait_for_all()
    if not ranks.is_first():
        state = checkpointer.newest()
    epochs = ranks.gathered(0 if state is None else state.epoch)
    if len(set(epochs)) > 1:
        raise OSError(f"the ranks read different checkpoints, of the epochs {epochs}")
    return state


def restore_optimizer(trainer: ResumableTrainer, state: TrainingState) -> None:
    """Restore moments, learning rates, schedule and loss scale.

    Tensors are copied, because the optimizer will write to them.
    """
    moments: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [one for group in trainer.optimizer.param_groups for one in group["params"]]
    for name, tensor in state.part("optimizer").items():
        index, _, leaf = name.partition(".")
        parameter = parameters[int(index)]
        part = ranks.placed_like(tensor, parameter) if tensor.dim() else tensor
        moments.setdefault(int(index), {})[leaf] = part.clone()
    groups = trainer.optimizer.state_dict()["param_groups"]
    rated = [
        {**group, "lr": rate} for group, rate in zip(groups, state.values["rates"], strict=True)
    ]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": rated})
    trainer.lr_scheduler.load_state_dict(state.values["schedule"])
    trainer.set_loss_scale(state.values["loss_scale"])


def _random_tensors(order: torch.Generator) -> dict[str, torch.Tensor]:
    """Return the states of the order and, of every rank, of the generators that draw masks."""
    own = {"torch": torch.get_rng_state()}
    own |= {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"order": order.get_state()} | {
        _of_rank(name, rank): state
        for rank, found in enumerate(ranks.gathered(own))
        for name, state in found.items()
    }


def _of_rank(name: str, rank: int) -> str:
    return f"{name}-{rank}" if rank else name


def _random_values() -> Mapping[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *rest]}


def restore_random_state(trainer: ResumableTrainer, state: TrainingState) -> None:
    """Restore the random generators of Python, NumPy, torch, CUDA and the batch order.

    A rank that did not exist when they were saved draws other masks than the rest.
    """
    tensors, values = state.part("random"), state.values["random"]
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = values["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    trainer.order.set_state(tensors["order"])
    own, rank = _of_rank("torch", ranks.rank()), ranks.rank()
    torch.set_rng_state(tensors.get(own, tensors["torch"]))
    if own not in tensors:  # it was saved by fewer ranks
        torch.manual_seed(int(torch.randint(2**31, (1,))) + rank)
    elif "cuda" in tensors:
        torch.cuda.set_rng_state(tensors[_of_rank("cuda", rank)])
