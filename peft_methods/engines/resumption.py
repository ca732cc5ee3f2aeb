"""All that the next epoch depends on: taken after each epoch, and put back by a process that goes on from there."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_methods.engines.base import Listener, put_trainable, save_trainable, trainable
from peft_methods.engines.judging import Judge

TRAINER_STATE = "trainer_state.json"  # the Trainer's name for it


@dataclass(frozen=True)
class TrainingState:
    """A training between two epochs: tensors by dotted names, on the host, and plain JSON values."""

    epoch: int
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors under `name`, by the rest of their names."""
        return {
            whole.removeprefix(f"{name}."): tensor
            for whole, tensor in self.tensors.items()
            if whole.startswith(f"{name}.")
        }


class Keeper(Protocol):
    """Where states are kept while a cell trains."""

    def newest(self) -> TrainingState | None:
        """The state to go on from; None: train from the beginning."""

    def keep(self, state: TrainingState) -> None:
        """Keep this state instead of the one before."""


class ResumableTrainer(Protocol):
    """What is asked of a trainer here. `order` draws the order of batches; `resumed` is what is still to be put back."""

    model: Any
    optimizer: Any
    lr_scheduler: Any
    state: Any
    order: torch.Generator
    resumed: TrainingState | None

    def loss_scale(self) -> dict[str, Any]:
        """fp16's loss scale as JSON values; empty without one."""

    def set_loss_scale(self, values: dict[str, Any]) -> None:
        """Put it back."""


class KeepsEpochs(TrainerCallback):
    """Has every epoch's state kept, once the judge has seen the epoch."""

    def __init__(
        self, trainer: ResumableTrainer, judge: Judge, listener: Listener, keeper: Keeper
    ) -> None:
        self.trainer, self.judge, self.listener, self.keeper = trainer, judge, listener, keeper

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the state and have it kept; this is no training time."""
        self.listener.enter("save")
        is_over = control.should_training_stop or len(self.judge.results) == args.num_train_epochs
        self.keeper.keep(_taken(self.trainer, self.judge, self.listener, is_over=is_over))
        self.listener.enter("evaluate")


def _taken(
    trainer: ResumableTrainer, judge: Judge, listener: Listener, *, is_over: bool
) -> TrainingState:
    """The state after the last epoch judged. To the Trainer a training that is over, early or not, has done all its steps."""
    optimizer = trainer.optimizer.state_dict()
    moments = {
        f"{index}.{name}": tensor.cpu()
        for index, values in optimizer["state"].items()
        for name, tensor in values.items()
    }
    tensors = {
        "weights": trainable(trainer.model),
        "best": {} if judge.best is judge.results[-1] else load_file(judge.best_file),
        "optimizer": moments,
        "random": _random_tensors(trainer.order),
    }
    steps = trainer.state.max_steps if is_over else trainer.state.global_step
    values = {
        "trainer": {**asdict(trainer.state), "global_step": steps},
        "judge": judge.state(),
        "rates": [float(group["lr"]) for group in optimizer["param_groups"]],
        "schedule": trainer.lr_scheduler.state_dict(),
        "loss_scale": trainer.loss_scale(),
        "random": _random_values(),
        "measured": listener.measured(),
    }
    flat = {
        f"{part}.{name}": tensor
        for part, tensors in tensors.items()
        for name, tensor in tensors.items()
    }
    return TrainingState(len(judge.results), flat, values)


def go_on(
    trainer: ResumableTrainer, judge: Judge, listener: Listener, keeper: Keeper, folder: Path
) -> str | None:
    """Put back weights, judgements and what was measured; the folder where the Trainer reads how far it is.

    What belongs to objects that the Trainer has yet to make waits in `trainer.resumed`. None: nothing is there to go on from.
    """
    listener.enter("save")
    state = keeper.newest()
    if state is None:
        return None
    put_trainable(trainer.model, state.part("weights"))
    judge.put_back(state.values["judge"])
    if best := state.part("best"):
        save_file(best, judge.best_file)
    else:
        save_trainable(trainer.model, judge.best_file)
    listener.take_over(state.values["measured"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINER_STATE).write_text(json.dumps(state.values["trainer"]), encoding="utf-8")
    trainer.resumed = state
    return str(folder)


def put_back_optimizer(trainer: ResumableTrainer, state: TrainingState) -> None:
    """Moments, rates, schedule and loss scale. Tensors are copied: the optimizer will write to them."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.part("optimizer").items():
        index, _, leaf = name.partition(".")
        moments.setdefault(int(index), {})[leaf] = tensor.clone()
    groups = trainer.optimizer.state_dict()["param_groups"]
    rated = [
        {**group, "lr": rate} for group, rate in zip(groups, state.values["rates"], strict=True)
    ]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": rated})
    trainer.lr_scheduler.load_state_dict(state.values["schedule"])
    trainer.set_loss_scale(state.values["loss_scale"])


def _random_tensors(order: torch.Generator) -> dict[str, torch.Tensor]:
    found = {"torch": torch.get_rng_state(), "order": order.get_state()}
    return found | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _random_values() -> Mapping[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *rest]}


def put_back_random(trainer: ResumableTrainer, state: TrainingState) -> None:
    """Every generator as it was when the state was taken."""
    tensors, values = state.part("random"), state.values["random"]
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = values["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    trainer.order.set_state(tensors["order"])
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])
