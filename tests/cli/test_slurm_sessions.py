"""Whole sessions through a real Slurm: what the user types, sees and interrupts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from builders import BENCHMARK, restore_sigint
from peft_methods import compare
from peft_methods.cli.execution import executor_of
from peft_methods.runs.store import Store
from peft_methods.utils.errors import OptionError
from slurm_cluster import Cluster, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
SECONDS = 400
LONG = "--peft-set=budget.epochs=10000"
CPU = "--peft-slurm=gpu=none,cpus=1"


class Session:
    """A pytest session in a separate process."""

    def __init__(self, recipe: Path, folder: Path, *arguments: str, seeds: int = 2) -> None:
        self.results = folder / "results"
        self._out = folder / f"out-{len(list(folder.glob('out-*')))}.txt"
        command = [
            *(sys.executable, "-m", "pytest", str(BENCHMARK), f"--rootdir={folder}", "-c/dev/null"),
            *("-p", "peft_methods.plugin", "-p", "no:cacheprovider"),
            *(f"--peft-recipe={recipe}", "--peft-method=full,lora", f"--peft-seeds={seeds}"),
            *("--peft-executor=slurm", f"--peft-results={self.results}", *arguments),
        ]
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=restore_sigint,  # noqa: PLW1509 - no other thread runs here
            )

    @property
    def text(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def end(self) -> int:
        return self.process.wait(SECONDS)

    def lines(self, *beginnings: str) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith(beginnings)]


def ended(session: Session) -> tuple[int, str]:
    return session.end(), session.text


def test_session_detaches_and_the_same_command_collects_its_results(
    tiny_recipe: Path, tmp_path: Path, slurm: Cluster
) -> None:
    code, text = ended(Session(tiny_recipe, tmp_path, CPU, "--peft-detach"))
    assert code == 0, text
    assert "waits for a machine" in text
    (left,) = re.findall(r"detached: (\d) jobs in Slurm\.", text)
    assert left == "4"
    assert "run the same command without --peft-detach" in text
    (array,) = re.findall(r"To cancel: scancel (\d+)", text)
    assert f"squeue --jobs={array}" in text
    assert "comparison of fine-tuning methods" not in text
    jobs = set(slurm.jobs())
    assert {f"{array}_{index}" for index in range(4)} <= jobs
    until(lambda: Store(tmp_path / "results").records()[0], SECONDS)
    second = Session(tiny_recipe, tmp_path, CPU)
    code, text = ended(second)
    assert code == 0, text
    assert "comparison of fine-tuning methods" in text
    assert "reused from an earlier session" in text
    assert set(slurm.jobs()) <= jobs  # neither runs nor the check were submitted again
    assert not (tmp_path / "results" / "slurm").exists()
    records, _ = Store(tmp_path / "results").records()
    assert len(records) == 4


def test_second_session_of_the_same_results_is_refused(
    tiny_recipe: Path, tmp_path: Path, slurm: Cluster
) -> None:
    first = Session(tiny_recipe, tmp_path, CPU)
    until(slurm.live)
    code, text = ended(Session(tiny_recipe, tmp_path, CPU))
    first.process.send_signal(signal.SIGINT)
    first.end()
    assert code == pytest.ExitCode.USAGE_ERROR, text
    assert "another session uses the executor 'slurm' with the results in" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_cancels_the_jobs(
    number: signal.Signals, tiny_recipe: Path, tmp_path: Path, slurm: Cluster
) -> None:
    session = Session(tiny_recipe, tmp_path, CPU, LONG)
    until(lambda: session.process.poll() is not None or "started" in session.text, SECONDS)
    session.process.send_signal(number)
    code, text = ended(session)
    assert code == pytest.ExitCode.INTERRUPTED, text
    assert "Not trained, since the session was ended early" in text
    until(lambda: not slurm.live(), 20)
    assert not (tmp_path / "results" / "slurm").exists()


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("partition=gpus", ["unknown partition 'gpus'", "Allowed: main, urgent"]),
        ("partition=mian", ["Did you mean 'main'?"]),
        ("gpu=h100", ["has no GPU of type 'h100'", "Allowed: fake, other, none"]),
        ("cpus=1", ["GPUs of several types", "Allowed: fake, other, none"]),
        ("gpu=none,time=3d", ["time '3d'", "90s, 10min or 2h"]),
        ("gpu=none,time=60s", ["allowed is 2 min or more"]),
        ("gpu=none,partition=urgent,time=2h", ["allows at most 60 min"]),
        ("gpu=none,partion=main", ["no such parameter", "Did you mean 'partition'?"]),
        ("gpu=none,array=1-3", ["every job sets it itself"]),
        ("gpu=none,cpus=many", ["cpus 'many'", "whole number"]),
        ("main", ["'main' should be KEY=VALUE"]),
    ],
)
def test_wrong_request_is_refused_in_one_line(
    value: str, parts: Sequence[str], slurm: Cluster
) -> None:
    with pytest.raises(OptionError) as caught:
        executor_of("slurm", None, slurm=[value])
    assert "\n" not in str(caught.value)
    assert caught.value.setting == "slurm"
    for part in parts:
        assert part in str(caught.value)


def test_request_knows_the_largest_node(slurm: Cluster) -> None:
    chosen = executor_of("slurm", None, slurm=["gpu=fake"])["request"]
    assert (chosen.largest_node, chosen.device) == (2, "cuda")
    assert executor_of("slurm", None, slurm=["gpu=none"])["request"].largest_node == 8


def test_wrong_partition_ends_the_session_at_once(
    tiny_recipe: Path, tmp_path: Path, slurm: Cluster
) -> None:
    code, text = ended(Session(tiny_recipe, tmp_path, "--peft-slurm=partition=gpus"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert (
        "ERROR: slurm partition: unknown partition 'gpus'. Allowed: main, urgent. "
        "Change it with --peft-slurm." in text
    )


def test_slurm_that_does_not_answer_is_one_line(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "slurm.conf"
    text = (slurm.folder / "slurm.conf").read_text()
    nowhere.write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1\nMessageTimeout=2", text))
    monkeypatch.setenv("SLURM_CONF", str(nowhere))
    with pytest.raises(OptionError, match=r"Slurm does not answer.*Check that `sinfo` works here"):
        executor_of("slurm", None)


def test_configuration_that_does_not_exist_is_one_line(
    slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    with pytest.raises(OptionError, match=r"SLURM_CONF names /nowhere/slurm\.conf, which does not"):
        executor_of("slurm", None)


def test_compare_runs_through_slurm(tiny_recipe: Path, tmp_path: Path, slurm: Cluster) -> None:
    done = compare(
        str(tiny_recipe),
        methods=["lora"],
        seeds=1,
        results=tmp_path / "results",
        executor="slurm",
        slurm={"gpu": "none", "cpus": "1"},
        progress=False,
    )
    (record,) = done.records
    assert record.status == "ok"
    until(lambda: not slurm.live(), 30)  # the job ends a moment after its result
