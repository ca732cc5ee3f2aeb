"""Options for Slurm on a machine that has none."""

from __future__ import annotations

import pytest

from peft_methods.cli.execution import executor_of
from peft_methods.cli.without_tests import refuse_detach
from peft_methods.runs.executors.slurm import commands
from peft_methods.runs.executors.slurm.commands import Partition, reason_of
from peft_methods.runs.executors.slurm.request import parse_request
from peft_methods.utils.errors import OptionError


def test_missing_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionError, match=r"sbatch, squeue.*login node") as caught:
        executor_of("slurm", None)
    assert caught.value.setting == "executor"


@pytest.mark.parametrize("values", [{"slurm": ["time=1h"]}, {"detach": True}])
def test_option_for_slurm_needs_its_executor(values: dict[str, object]) -> None:
    (name,) = values
    with pytest.raises(OptionError, match=f"{name} needs the executor 'slurm', and it is 'local'"):
        executor_of("local", None, **values)  # type: ignore[arg-type]


def test_tuning_cannot_be_detached() -> None:
    with pytest.raises(OptionError, match="each trial depends on the results before it"):
        refuse_detach(20, detach=True)
    refuse_detach(None, detach=True)
    refuse_detach(20, detach=False)


def test_assignments_may_share_one_option_and_hold_commas() -> None:
    assert parse_request(["partition=gpu,time=2h", "exclude=n[1,2],qos=high", "licenses=a=b"]) == {
        "partition": "gpu",
        "time": "2h",
        "exclude": "n[1,2]",
        "qos": "high",
        "licenses": "a=b",
    }


@pytest.mark.parametrize("text", ["", "time", "time=", "=2h"])
def test_assignment_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="should be KEY=VALUE"):
        parse_request([text])


def test_partitions_are_read_from_lines_for_groups_of_equal_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        "gpu*|1:00:00|7-00:00:00|gpu:a100:4(S:0-1)|64",
        "gpu*|1:00:00|7-00:00:00|gpu:h100:8,nic:2|96+",
        "gpu*|1:00:00|7-00:00:00|gpu:a100:2|32",
        "old|n/a|infinite|gpu:2|8",
        "cpu|30:00|1-12:30:00|(null)|16",
    ]
    monkeypatch.setattr(commands, "_run", lambda *command: "\n".join(lines))
    assert commands.partitions() == [
        Partition("gpu", True, 60, 7 * 24 * 60, {"a100": 4, "h100": 8}, 96),
        Partition("old", False, None, None, {"": 2}, 8),
        Partition("cpu", False, 30, 36 * 60 + 30, {}, 16),
    ]


def test_reason_is_the_line_that_gives_it() -> None:
    output = (
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    assert reason_of(output) == "invalid partition specified: nope"
    assert reason_of("sbatch: unrecognized option '--foo'\nTry \"sbatch --help\"") == (
        "sbatch: unrecognized option '--foo'"
    )
    assert reason_of("") == ""
