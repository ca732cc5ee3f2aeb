"""Runs that follow one another in a process: the same results as in fresh ones, or a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from misbehaving_methods import Leaking, Misbehaving

from builders import reproducible_results, small_runs
from peft_methods.methods.base import Method
from peft_methods.runs.isolation.process import RunProcess
from peft_methods.runs.record import Record
from peft_methods.runs.scheduler import Scheduler
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store


class Session:
    """A scheduler with its store, and the process of every run."""

    def __init__(self, folder: Path, *, workers: int = 1, isolation: str = "warm", **more: Any):
        self.store = Store(folder)
        self.store.prepare()
        self.scheduler: Scheduler = new_scheduler(
            self.store, "cpu", workers=workers, isolation=isolation, **more
        )
        self.processes: dict[str, int] = {}
        self.scheduler.watch(self._see)

    def _see(self, event: Any) -> None:
        for worker, run in self.scheduler._running.items():
            if run == event.run and event.news:
                self.processes[run.key] = worker.process  # type: ignore[attr-defined]

    def train(self, runs: list[RunSpec]) -> list[Record]:
        self.scheduler.submit(runs)
        records = self.scheduler.wait(runs)
        assert [record.key for record in records] == [run.key for run in runs]
        return records

    def results(self, records: list[Record]) -> list[dict[str, Any]]:
        found = [self.store.read_predictions(record) for record in records]
        return [reproducible_results(*both) for both in zip(records, found, strict=True)]  # type: ignore[arg-type]


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Return a function that makes a session, with a folder of its own."""
    made: list[Session] = []

    def make(**more: Any) -> Session:
        made.append(Session(tmp_path / f"results{len(made)}", **more))
        return made[-1]

    yield make
    for one in made:
        one.scheduler.close()


@pytest.fixture
def session(sessions: Callable[..., Session]) -> Session:
    return sessions()


def seeds_of(recipe: Path, method: Method, count: int, **changes: Any) -> list[RunSpec]:
    (run,) = small_runs(recipe, "head_only")
    return [replace(run, method=method, seed=seed, **changes) for seed in range(count)]


def isolation(record: Record) -> dict[str, Any]:
    assert record.status == "ok", record.message
    found: dict[str, Any] = record.environment["isolation"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_method_gives_the_same_in_one_process_in_any_order(
    sessions: Callable[..., Session], tiny_recipe: Path
) -> None:
    names = ("full", "lora", "qlora", "ia3", "adapter", "adapter_fusion", "bitfit", "lora")
    runs = [
        replace(small_runs(tiny_recipe, name)[0], seed=place) for place, name in enumerate(names)
    ]
    fresh = sessions(isolation="fresh")
    expected = fresh.results(fresh.train(runs))
    for order in (runs, runs[::-1]):
        session = sessions()
        records = session.train(order)
        assert session.results(records) == [expected[runs.index(run)] for run in order]
        assert [isolation(record)["left_behind"] for record in records] == [[]] * len(runs)
        assert len(set(session.processes.values())) == 1


def test_next_seed_and_next_method_use_the_same_process_and_give_the_same(
    sessions: Callable[..., Session], tiny_recipe: Path
) -> None:
    session, fresh = sessions(), sessions(isolation="fresh")
    (lora,), (full,) = (small_runs(tiny_recipe, name) for name in ("lora", "full"))
    runs = [lora, replace(lora, seed=1), full]
    records = session.train(runs)
    assert [isolation(record) for record in records] == [
        {"process": "warm", "runs_before": before, "left_behind": []} for before in range(3)
    ]
    assert len(set(session.processes.values())) == 1
    again = fresh.train(runs)
    assert len(set(fresh.processes.values())) == 3
    assert [isolation(record) for record in again] == [{"process": "fresh", "runs_before": 0}] * 3
    assert session.results(records) == fresh.results(again)
    assert [record.fingerprint for record in records] == [one.fingerprint for one in again]


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        ("hook", "_global_forward_hooks"),
        ("matrix", "tensors of 4.0 MiB"),
        ("dtype", "torch.get_default_dtype() was torch.float32 and is torch.float64"),
        ("function", "torch.nn.modules.normalization.LayerNorm.forward"),
        ("attention", "transformers.AttentionInterface"),
    ],
)
def test_run_that_leaves_something_behind_is_followed_by_a_fresh_process(
    session: Session, tiny_recipe: Path, leak: str, found: str
) -> None:
    leaking = seeds_of(tiny_recipe, Leaking(learning_rate=5e-2, leak=leak), 1)
    clean = seeds_of(tiny_recipe, Leaking(learning_rate=5e-2), 1)
    first, second = session.train([*leaking, *clean])
    assert any(found in line for line in isolation(first)["left_behind"]), isolation(first)
    assert isolation(second) == {"process": "warm", "runs_before": 0, "left_behind": []}
    assert len(set(session.processes.values())) == 2


def test_random_states_environment_and_directory_are_reset(
    sessions: Callable[..., Session], tiny_recipe: Path
) -> None:
    session, fresh = sessions(), sessions(isolation="fresh")
    leaking = seeds_of(tiny_recipe, Leaking(learning_rate=5e-2, leak="random state"), 1)
    clean = seeds_of(tiny_recipe, Leaking(learning_rate=5e-2), 1)
    first, second = session.train([*leaking, *clean])
    assert isolation(first)["left_behind"] == []
    assert isolation(second)["runs_before"] == 1
    again = fresh.train(clean)
    assert session.results([second]) == fresh.results(again)


def test_crash_in_the_second_run_of_a_process_costs_one_run(
    session: Session, tiny_recipe: Path
) -> None:
    sound = seeds_of(tiny_recipe, Misbehaving(learning_rate=5e-2), 3)
    (dying,) = seeds_of(tiny_recipe, Misbehaving(learning_rate=5e-2, way="die"), 1)
    (failing,) = seeds_of(tiny_recipe, Misbehaving(learning_rate=5e-2, way="raise"), 1)
    first, killed, second, failed, third = session.train(
        [sound[0], dying, sound[1], failing, sound[2]]
    )
    assert killed.status in {"crashed", "oom"}
    assert failed.status == "failed"
    before = [isolation(record)["runs_before"] for record in (first, second, third)]
    assert before == [0, 0, 0]


def test_runs_side_by_side_have_a_process_each(
    sessions: Callable[..., Session], tiny_recipe: Path
) -> None:
    session = sessions(workers=2)
    records = session.train(seeds_of(tiny_recipe, Leaking(learning_rate=5e-2), 6))
    assert len(set(session.processes.values())) == 2
    assert sum(isolation(record)["runs_before"] == 0 for record in records) == 2


def test_first_run_of_a_process_does_not_ask_cuda(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has asked cannot fork ranks that use CUDA (torch poisons its forks)."""
    (run,) = small_runs(tiny_recipe, "lora")

    def fail() -> None:
        raise AssertionError("CUDA was asked")

    for name in ("is_available", "device_count"):
        monkeypatch.setattr(torch.cuda, name, fail)
    RunProcess().begin(run, torch.get_num_threads())


def test_run_in_a_warm_process_can_time_out(
    sessions: Callable[..., Session], tiny_recipe: Path
) -> None:
    session = sessions(timeout=30, retries=0)
    sound = seeds_of(tiny_recipe, Misbehaving(learning_rate=5e-2), 2)
    (hanging,) = seeds_of(tiny_recipe, Misbehaving(learning_rate=5e-2, way="hang"), 1)
    first, hung, second = session.train([sound[0], hanging, sound[1]])
    assert hung.status == "timeout"
    assert "misbehaving_methods.py" in hung.stack
    assert [isolation(record)["runs_before"] for record in (first, second)] == [0, 0]
