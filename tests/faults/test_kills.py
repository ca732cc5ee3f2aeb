"""SIGKILL to any process of a session at any moment; SIGTERM and SIGINT, once and twice.

Finished results must stay.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from faults.ground import Ground, Run

# Minimum number of kills in a part of the test, and of kills of the whole session.
KILLS, PARENTS = 15, 4
RETRIES = "--peft-retries=99"  # there are many kills, and none is the run's fault


def kill_children(run: Run, rng: random.Random, ended: int) -> str:
    """Kill children of a session until `ended` more runs have ended; return the kinds of kills."""
    killed = []
    goal = run.text.count(": accuracy") + ended

    def has_come() -> bool:
        if run.text.count(": accuracy") >= goal:
            return True
        time.sleep(rng.uniform(0.1, 1.0))
        if children := run.children():
            server = rng.random() < 0.1
            victim = rng.choice(run.children(server=True) or children if server else children)
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                return False
            killed.append("SIGKILL of the fork server" if server else "SIGKILL of a run's process")
        return len(killed) >= 8

    run.until(has_come)
    return killed


@pytest.mark.faults
@pytest.mark.parametrize("part", range(4))
def test_kills_at_random_moments_lose_nothing(ground: Callable[..., Ground], part: int) -> None:
    rng = random.Random(part)
    kills = parents = 0
    while kills < KILLS or parents < PARENTS:
        here = ground(options=[RETRIES, *["--peft-checkpoint"] * (part % 2)])
        for _ in range(4):
            run = here.start()
            before: dict[str, bytes] = here.finished()
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 8))  # during imports, preparing or training
                killed = []
            else:
                killed = kill_children(run, rng, rng.randint(0, 5))
                time.sleep(rng.uniform(0, 0.3))
                before = here.finished()
            ended = run.parent.poll() is not None
            if not ended:
                run.parent.kill()
            assert run.end() == (0 if ended else -signal.SIGKILL), run.text
            for kind in killed:
                here.count(kind, before)
            here.count("SIGKILL of the session", before, faults=not ended)
            kills += len(killed) + (not ended)
            parents += not ended
        here.complete("SIGKILL of the session")


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_interrupts_lose_nothing(
    ground: Callable[..., Ground], number: signal.Signals, times: int
) -> None:
    rng = random.Random(f"{number.name} {times}")
    here = ground(seeds=3)
    kind = f"{number.name}, {('once', 'twice')[times - 1]}"
    for ended in (0, 3):
        run = here.start()
        run.until(
            lambda run=run, ended=ended: (
                "started" in run.text and run.text.count(": accuracy") >= ended
            )
        )
        time.sleep(rng.uniform(0, 0.5))
        before = here.finished()
        for _ in range(times):
            run.parent.send_signal(number)
            time.sleep(rng.uniform(0, 0.2))
        code = run.end()
        assert code in {0, 2}, run.text  # 0: the session was just done
        assert "Traceback" not in run.text
        here.count(kind, before)
    here.complete(kind)


@pytest.mark.slow
def test_killed_run_and_killed_session_lose_nothing(ground: Callable[..., Ground]) -> None:
    """The sample that always runs."""
    here = ground(methods=("head_only",), seeds=6, options=[RETRIES])
    run = here.start()
    assert run.until(lambda: "started" in run.text and run.children())
    _kill_one(run)
    run.until(lambda: run.text.count(": accuracy") >= 2)
    before = here.finished()
    assert before
    run.parent.kill()
    run.end()
    here.count("SIGKILL", before, faults=2)
    here.complete("SIGKILL")


def _kill_one(run: Any) -> None:
    run.children()[0].kill()
