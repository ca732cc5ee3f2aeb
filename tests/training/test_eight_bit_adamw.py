"""Methods whose optimizer keeps its state in 8 bits, on a model with matrices large enough."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bitsandbytes.optim import GlobalOptimManager
from torch import nn

from builders import (
    Recorder,
    StepLog,
    make_model,
    prepared,
    reproducible_results,
    run_here,
    small_runs,
    training_job,
)
from peft_methods.methods.registry import METHODS
from peft_methods.runs.fitting_engine import with_fitting_engine
from peft_methods.runs.isolation.state import changes, process_state
from peft_methods.runs.run_paths import RunPaths
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.distributed.support import unsupported_on_several
from peft_methods.training.eight_bit_adamw import AdamW8bit
from peft_methods.training.engine import TrainingJob, TrainingState
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit

NAME = "full_8bit"
HIDDEN = 64  # 64 * 64 numbers: the smallest tensor whose state is in 8 bits
SMALL = ("data.train=44", "data.validation=20", "budget.epochs=3")
RATE = 2e-3


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose matrices of attention have states in 8 bits."""
    folder = make_model(tmp_path_factory.mktemp("wide") / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = HIDDEN, 96
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(config)
    nn.init.constant_(model.pooler.dense.bias, 1e-3)  # an all-zero bias means "never trained"
    model.save_pretrained(folder)
    return folder


def job_of(
    recipe: Path, model: Path, folder: Path, *settings: str, name: str = NAME
) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    given = (f"model.source={model}", f"methods.{name}.learning_rate={RATE}", *SMALL, *settings)
    return training_job(prepared(recipe, name, *given), folder)


class Kept:
    """A trainer class that is found again after a training, with its losses and its optimizer."""

    def __init__(self) -> None:
        self.log, self.trainers = StepLog(loop.RunTrainer), list[Any]()
        outer = self

        class Watched(self.log.kind):  # type: ignore[name-defined]
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                outer.trainers.append(self)

        self.kind = Watched

    @property
    def optimizer(self) -> Any:
        return self.trainers[-1].optimizer.optimizer


class Watching(Recorder):
    """A recorder with measurements to store."""

    def measured(self) -> dict[str, Any]:
        return {}

    def take_over(self, measured: dict[str, Any]) -> None:
        assert measured == {}


def trained(job: TrainingJob, checkpointer: Any = None) -> Kept:
    kept = Kept()
    loop.train(job, Watching(), checkpointer, trainer_class=kept.kind)
    return kept


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in job.model.named_parameters()}


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(v, others[k]) for k, v in some.items())


def test_large_matrices_have_states_in_8_bits_and_embeddings_in_32(
    tiny_recipe: Path, wide: Path, tmp_path: Path
) -> None:
    job = job_of(tiny_recipe, wide, tmp_path)
    state = trained(job).optimizer.state
    for name, parameter in job.model.named_parameters():
        is_in_8 = parameter.numel() >= 4096 and "embeddings" not in name
        assert parameter.dtype == torch.float32
        for moment in ("state1", "state2"):
            assert state[parameter][moment].shape == parameter.shape
            wanted = torch.uint8 if is_in_8 else torch.float32
            assert state[parameter][moment].dtype == wanted, name
    large = [name for name, p in job.model.named_parameters() if p.numel() >= 4096]
    assert any("query.weight" in name for name in large)
    assert any("word_embeddings" in name for name in large)


def test_steps_are_close_to_those_with_states_in_32_bits(
    tiny_recipe: Path, wide: Path, tmp_path: Path
) -> None:
    plain = trained(job_of(tiny_recipe, wide, tmp_path / "a", name="full")).log
    eight = trained(job_of(tiny_recipe, wide, tmp_path / "b")).log
    assert eight.losses[0] == plain.losses[0]
    assert eight.losses == pytest.approx(plain.losses, abs=0.05)
    assert eight.losses != plain.losses
    assert eight.rates == plain.rates


@pytest.mark.parametrize(
    "setting", ["budget.batch_size=8", "budget.gradient_accumulation=2", "budget.precision=bf16"]
)
def test_training_twice_gives_the_same_weights(
    setting: str, tiny_recipe: Path, wide: Path, tmp_path: Path
) -> None:
    jobs = [job_of(tiny_recipe, wide, tmp_path / one, setting) for one in "ab"]
    before = weights(jobs[0])
    for job in jobs:
        trained(job)
    assert same(weights(jobs[0]), weights(jobs[1]))
    assert not same(weights(jobs[0]), before)


class Interrupted(Exception):
    """Simulates the end of the process."""


class InMemory:
    """Keeps the newest state, as a later process would read it, and may end the process."""

    def __init__(self, *, ends: int | None = None) -> None:
        self.state: TrainingState | None = None
        self.ends = ends

    def newest(self) -> TrainingState | None:
        return self.state

    def save(self, state: TrainingState) -> None:
        assert all(isinstance(one, torch.Tensor) for one in state.tensors.values())
        tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
        self.state = TrainingState(state.epoch, tensors, json.loads(json.dumps(state.values)))
        if state.epoch == self.ends:
            raise Interrupted


def test_a_resumed_training_ends_with_the_same_weights(
    tiny_recipe: Path, wide: Path, tmp_path: Path
) -> None:
    whole = job_of(tiny_recipe, wide, tmp_path / "whole")
    first = trained(whole).optimizer.state_dict()["state"]
    kept = InMemory(ends=2)
    with pytest.raises(Interrupted):
        trained(job_of(tiny_recipe, wide, tmp_path / "cut"), kept)
    assert kept.state is not None
    found = {tensor.dtype for tensor in kept.state.part("optimizer").values()}
    assert torch.uint8 in found
    kept.ends = None
    torch.rand(5)  # another process has used the random numbers differently
    again = job_of(tiny_recipe, wide, tmp_path / "again")
    second = trained(again, kept).optimizer.state_dict()["state"]
    assert same(weights(again), weights(whole))
    assert all(same(first[index], second[index]) for index in first)


def test_a_restored_optimizer_has_one_code_for_all_tensors() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    optimizer = stepped(model)
    other = AdamW8bit(list(model.parameters()), of=model, lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    states = [v for v in other.state.values() if v["state1"].dtype == torch.uint8]
    assert len({id(v["qmap1"]) for v in states}) == 1
    assert [v["step"] for v in other.state.values()] == [1] * 4
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    other.step()


def stepped(model: nn.Module, **settings: Any) -> AdamW8bit:
    optimizer = AdamW8bit(list(model.parameters()), of=model, lr=0.1, **settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@contextmanager
def clean_manager() -> Iterator[Any]:
    """Yield bitsandbytes' exceptions of the whole process, which must be none."""
    manager = GlobalOptimManager.get_instance()
    before = copy.copy(vars(manager))
    yield manager
    assert vars(manager) == before


def test_exceptions_of_one_optimizer_are_not_those_of_the_next() -> None:
    with clean_manager() as manager:
        stepped(nn.Sequential(nn.Embedding(64, 64), nn.Linear(64, 64)))
        assert not manager.module_weight_config_triple
        assert not manager.pid2config
        assert not manager.index2config
        linear = nn.Sequential(nn.Linear(64, 64))
        state = stepped(linear).state
        assert state[linear[0].weight]["state1"].dtype == torch.uint8


def test_a_run_leaves_the_process_as_it_was(tiny_recipe: Path, wide: Path, tmp_path: Path) -> None:
    (run,) = small_runs(tiny_recipe, NAME, f"model.source={wide}")
    first = run_here(run, tmp_path / "first")
    before = process_state()  # a process makes some settings before its first run
    with clean_manager():
        second = run_here(run, tmp_path / "second")
    assert changes(before, process_state()) == []
    assert reproducible_results(*second) == reproducible_results(*first)


def test_parameters_keep_their_own_rates(tiny_recipe: Path, wide: Path, tmp_path: Path) -> None:
    job = job_of(tiny_recipe, wide, tmp_path, f"methods.{NAME}.head_learning_rate=0.02")
    trainer = loop.RunTrainer(job, loop.trainer_arguments(job), Recorder())
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, AdamW8bit)
    names = {id(p): name for name, p in job.model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates.keys() == set(names.values())
    assert {name for name, rate in rates.items() if rate == 0.02} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert {rate for name, rate in rates.items() if "classifier" not in name} == {RATE}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model: Any = job.model
    word = model.get_input_embeddings().weight  # its place in the groups changed
    assert optimizer.state[word]["state1"].dtype == torch.float32


def test_an_engine_that_replays_steps_leaves_it_to_the_trainer(
    tiny_recipe: Path, wide: Path, tmp_path: Path
) -> None:
    (run,) = small_runs(tiny_recipe, NAME)
    asked = replace(run, device="cuda", engine="cuda_graphs")
    fitting, paths = with_fitting_engine(asked, RunPaths(tmp_path))
    assert fitting.engine == "trainer"
    assert paths.engine_note.startswith(
        "the optimizer of Full fine-tuning, 8-bit AdamW takes rate and step number from the host, "
        "and the cuda_graphs engine replays steps"
    )
    with pytest.raises(EngineUnfit, match="from the host"):
        loop.train(job_of(tiny_recipe, wide, tmp_path), Recorder(), trainer_class=CudaGraphsTrainer)


def test_fsdp_is_refused_and_ddp_is_not(tiny_recipe: Path) -> None:
    (run,) = small_runs(tiny_recipe, NAME)

    def problem(strategy: Any) -> str | None:
        return unsupported_on_several(
            run.method, replace(run.recipe.budget, gpus=2, strategy=strategy)
        )

    assert problem("ddp") is None
    assert problem("fsdp") == (
        "Full fine-tuning, 8-bit AdamW cannot be trained with budget.strategy = 'fsdp': "
        "set budget.strategy = 'ddp'"
    )


def test_its_rates_are_those_of_full_fine_tuning() -> None:
    full, eight = (METHODS[name].info.learning_rates for name in ("full", NAME))
    assert {kind: rate.value for kind, rate in eight.items()} == {
        kind: rate.value for kind, rate in full.items()
    }
    assert METHODS.reference == "full"
