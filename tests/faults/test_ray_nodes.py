"""Nodes of a Ray cluster that die in mid-run, and a session on it that is killed or interrupted.

Finished results must stay, and the same command completes the rest.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from faults.ground import Ground, Run
from ray_cluster import RayCluster

RETRIES = "--peft-retries=99"  # many nodes die, and none of it is a run's fault
KILLS = 6  # minimum number of nodes that die in a part of the test


@pytest.fixture
def cluster(ray_of_session: RayCluster) -> Iterator[RayCluster]:
    """The session's cluster, complete again afterwards."""
    yield ray_of_session
    ray_of_session.complete()


@pytest.fixture
def ray_ground(cluster: RayCluster, ground: Callable[..., Ground]) -> Callable[..., Ground]:
    """Return a function that creates a `Ground` whose sessions use the cluster."""
    options = ["--peft-executor=ray", f"--peft-ray-address={cluster.address}", RETRIES]

    def make(*more: str, **choices: object) -> Ground:
        return ground(options=[*options, *more], **choices)

    return make


def ended(run: Run) -> int:
    return run.text.count(": accuracy")


@pytest.mark.ray
def test_dead_node_and_killed_session_lose_nothing(
    cluster: RayCluster, ray_ground: Callable[..., Ground]
) -> None:
    """The sample that tox runs: a node dies, later the session, and the same command completes."""
    here = ray_ground("--peft-checkpoint", methods=("head_only",), seeds=6)
    run = here.start()
    assert run.until(lambda: ended(run) >= 1), run.text
    before = here.finished()
    cluster.kill_busy()
    here.count("death of a Ray node", before)
    assert run.until(lambda: ended(run) >= 3), run.text
    before = here.finished()
    run.parent.kill()
    run.end()
    here.count("SIGKILL of a session on Ray", before)
    cluster.complete()
    here.complete("SIGKILL of a session on Ray")


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_finished_runs_and_leaves_nothing_on_the_nodes(
    cluster: RayCluster, ray_ground: Callable[..., Ground], number: signal.Signals
) -> None:
    here = ray_ground(methods=("head_only",), seeds=6)
    run = here.start()
    assert run.until(lambda: ended(run) >= 1), run.text
    before = here.finished()
    run.parent.send_signal(number)
    assert run.end() == 2, run.text
    assert "Traceback" not in run.text
    here.count(f"{number.name} of a session on Ray", before)
    assert cluster.scratch_folders() == []
    here.complete(f"{number.name} of a session on Ray")


@pytest.mark.faults
@pytest.mark.parametrize("part", range(2))
def test_deaths_of_nodes_at_random_moments_lose_nothing(
    cluster: RayCluster, ray_ground: Callable[..., Ground], part: int
) -> None:
    rng = random.Random(part)
    kills = 0
    while kills < KILLS:
        here = ray_ground(*["--peft-checkpoint"] * (part % 2))
        run = here.start()
        while run.parent.poll() is None:
            goal = ended(run) + rng.randint(0, 2)
            if not run.until(lambda run=run, goal=goal: ended(run) >= goal):
                break
            time.sleep(rng.uniform(0, 5))
            before = here.finished()
            cluster.kill_busy(rng)
            here.count("death of a Ray node", before)
            kills += 1
            cluster.complete()
        assert run.end() == 0, run.text
        here.complete("death of a Ray node")
