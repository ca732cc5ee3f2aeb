"""Runs over several processes that fail, are ended, or continue with another number of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from misbehaving_methods import MisbehavingRank
from rank_builders import DDP, FSDP, ONE, losses, over, run_all

import language_builders
from builders import PROCESS_MARK, make_decoder, marked_processes
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.executors.devices import DeviceSet, Resources
from peft_methods.runs.executors.launch import run_in_ranks
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.rank import Ranks, has_lost_another
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.spec import RunSpec
from peft_methods.runs.store import Store

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A language model without dropout, and epochs of one step."""
    folder = tmp_path_factory.mktemp("language")
    model, data = make_decoder(folder / "model"), language_builders.write_pairs(folder / "data")
    found = language_builders.recipe_of(model, data, batch_size=16, epochs=4, seeds=(0,))
    return replace(found, data=replace(found.data, train=16, validation=4, test=4))


def run_of(recipe: Recipe, way: str, **more: object) -> RunSpec:
    method = MisbehavingRank(learning_rate=1e-3, way=way, **more)  # type: ignore[arg-type]
    return RunSpec(recipe, method, 0, "cpu")


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A mark in the environment of every process of a test."""
    name = f"ranks-{os.getpid()}-{request.node.name}"
    monkeypatch.setenv(PROCESS_MARK, name)
    return name


def wait_until_gone(mark: str, seconds: float = 30) -> None:
    """Wait until the workers and their ranks have ended; the fork server, our child, lives on."""
    until = time.monotonic() + seconds
    while left := [
        one for one in marked_processes(mark) if os.getpid() not in {one.pid, one.ppid()}
    ]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("way", "status", "message"),
    [
        ("die", "crashed", "rank 1 of 2 was killed by SIGKILL"),
        pytest.param(
            "raise",
            "failed",
            "rank 1 of 2: RuntimeError: raised on purpose",
            marks=pytest.mark.slow,
        ),
        pytest.param("fill memory", "oom", "rank 1 of 2: out of memory", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_gives_one_record_that_names_it(  # noqa: PLR0917  # three fixtures
    way: str, status: str, message: str, recipe: Recipe, tmp_path: Path, mark: str
) -> None:
    (record,) = run_all([run_of(over(recipe, *DDP), way, number=1)], tmp_path)
    assert record.status == status, record.message
    assert message in record.message
    wait_until_gone(mark)
    assert list((tmp_path / "logs").glob("*.rank1.log"))


@pytest.mark.slow
def test_ranks_end_with_their_worker(recipe: Recipe, tmp_path: Path, mark: str) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    folder = RunFolder(store)
    executor = LocalExecutor([DeviceSet((), 1)], folder.path)
    run = run_of(over(recipe, *DDP), "hang", number=1)
    handle = executor.start(RunRequests(store, folder, "cpu", Resources(0, 1)).run_job(run, {}))
    until = time.monotonic() + 300
    while not (folder.logs / f"{run.label}.rank1.log").exists():
        assert time.monotonic() < until
        list(executor.poll(0.1))
    executor.kill(handle)
    executor.close()
    wait_until_gone(mark)


@pytest.mark.parametrize(
    ("first", "second"),
    [(DDP, ONE), pytest.param(ONE, FSDP, marks=pytest.mark.slow),
     pytest.param(FSDP, DDP, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_run_continues_with_another_number_of_processes(
    first: tuple[int, str | None],
    second: tuple[int, str | None],
    recipe: Recipe,
    tmp_path: Path,
) -> None:
    """Its losses are those of a run that was never interrupted."""
    results = tmp_path / "results"
    run = run_of(recipe, "die", once=(str(results), "checkpoints/*/epoch-2.safetensors"))
    results.mkdir()
    (results / "armed").touch()
    begun = replace(run, recipe=over(recipe, *first))
    (dead,) = run_all([begun], results, checkpoint=True)
    assert dead.status == "crashed", dead.message
    (results / "armed").unlink()
    (done,) = run_all([replace(run, recipe=over(recipe, *second))], results, checkpoint=True)
    assert done.status == "ok", done.message
    assert done.environment["resumed_after_epochs"] == [2]
    (whole,) = run_all([run], tmp_path / "whole")
    assert losses(done) == pytest.approx(losses(whole), rel=1e-4, abs=1e-5)
    assert not list(results.glob("checkpoints/*"))


def test_losing_another_rank_is_recognised() -> None:
    gloo = RuntimeError("[/x/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]")
    assert has_lost_another(gloo)
    wrapped = ValueError("in a step")
    wrapped.__cause__ = gloo
    assert has_lost_another(wrapped)
    assert not has_lost_another(RuntimeError("shapes do not match"))


def test_ranks_return_what_the_first_returns(tmp_path: Path) -> None:
    ranks = Ranks(DeviceSet((), 2), 2, tmp_path / "ranks", tmp_path / "run.log", os.getpid())
    assert ranks.threads == 1
    assert run_in_ranks(ranks, "cpu", lambda is_first: f"first: {is_first}") == "first: True"
