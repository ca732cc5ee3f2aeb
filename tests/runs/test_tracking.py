"""Trackers, tested for real: event files and offline runs are read back."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from peft_methods.api import compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs.events import Event
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.process import Worker, fork_server
from peft_methods.runs.record import record_without_result
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.tracking.trackers import Tracking, parse_trackers
from peft_methods.utils.errors import OptionError

# wandb's file splits records into blocks. Each piece has a checksum, a length and a kind.
BLOCK, HEADER = 32768, struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def workers(scratch: Path) -> Callable[[], Worker]:
    """Return a function that starts a tracker's process, as the executor would."""
    return lambda: Worker(fork_server(DeviceSet()), scratch)


def curves(results: Path) -> dict[str, EventAccumulator]:
    """Load the tensorboard runs of a results folder, by the name of their folder."""
    files = (results / "tracking" / "tensorboard").rglob("events.*")
    return {file.parent.name: EventAccumulator(str(file.parent)).Reload() for file in files}


def scalars(run: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in run.Scalars(name)]


def offline_runs(results: Path) -> dict[str, list[Any]]:
    """Load wandb's records of each offline run, by the run's name."""
    found = {}
    for file in (results / "tracking" / "wandb").glob("offline-run-*/*.wandb"):
        records = list(wandb_records(file.read_bytes()))
        found[next(r.run.display_name for r in records if r.WhichOneof("record_type") == "run")] = (
            records
        )
    return found


def wandb_records(data: bytes) -> Iterator[Any]:
    at, message = 7, b""
    while at + HEADER.size <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER.size:
            at += left
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        message += data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in {WHOLE, LAST}:
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def history(records: list[Any]) -> list[dict[str, str]]:
    rows = [
        record.history.item for record in records if record.WhichOneof("record_type") == "history"
    ]
    return [
        {item.key or "/".join(item.nested_key): item.value_json for item in row} for row in rows
    ]


def services() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "wandb" in process.name()
    ]


@pytest.fixture
def without_tracker_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any setting for a tracker."""
    for variable in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "WANDB_DIR",
        "WANDB_PROJECT",
        "TENSORBOARD_LOGGING_DIR",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.mark.slow
@pytest.mark.usefixtures("without_tracker_settings")
def test_tracking_logs_a_comparison_without_changing_results(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": ["lora"], "seeds": 1, "progress": False}
    (plain,) = compare(str(tiny_recipe), results=tmp_path / "plain", **options).records
    made = compare(
        str(tiny_recipe), results=tmp_path / "r", track=["tensorboard", "wandb"], **options
    )
    (record,) = made.records
    assert made.notes == ()
    assert record.fingerprint == plain.fingerprint
    losses = [epoch["train_loss"] for epoch in record.epochs]
    assert losses == [epoch["train_loss"] for epoch in plain.epochs]
    assert record.metrics["accuracy"] == plain.metrics["accuracy"]
    assert not services()
    assert not (tmp_path / "plain" / "tracking").exists()

    runs = curves(tmp_path / "r")
    assert set(runs) == {"tiny-lora-seed0", "tiny-comparison"}
    run = runs["tiny-lora-seed0"]
    assert Path(run.path).parent.name == "tiny-lora"
    assert scalars(run, "train/loss") == [
        (20, pytest.approx(losses[0])),
        (40, pytest.approx(losses[1])),
    ]
    assert [value for _, value in scalars(run, "train/learning_rate")][-1] == 0
    assert scalars(run, "test/accuracy") == [(40, pytest.approx(record.metrics["accuracy"]))]
    assert scalars(run, "train/peak_memory_bytes")[-1] == (
        40,
        pytest.approx(record.metrics["peak_memory_bytes"], rel=1e-6),
    )
    assert scalars(runs["tiny-comparison"], "test/lora/accuracy") == [
        (0, pytest.approx(record.metrics["accuracy"]))
    ]
    (table,) = runs["tiny-comparison"].Tensors("test/comparison/text_summary")
    assert b"| LoRA" in table.tensor_proto.string_val[0]

    offline = offline_runs(tmp_path / "r")
    assert set(offline) == set(runs)
    logged = offline["tiny-lora-seed0"]
    (started,) = [r.run for r in logged if r.WhichOneof("record_type") == "run"]
    assert (started.run_group, started.project) == ("tiny-lora", "peft-methods")
    assert [float(row["train/loss"]) for row in history(logged) if "train/loss" in row] == losses
    settings = {item.key: item.value_json for r in logged for item in r.config.update}
    assert (settings["method.rank"], settings["seed"]) == ("4", "0")
    assert "test/lora/accuracy" in history(offline["tiny-comparison"])[-1]
    assert list(
        (tmp_path / "r" / "tracking" / "wandb").glob(
            "offline-run-*/files/media/table/test/*.table.json"
        )
    )


def make_runs(tiny_recipe: Path, count: int) -> list[RunSpec]:
    recipe = load_recipe(str(tiny_recipe), [f"budget.seeds={count}"])
    return run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")


def news(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "validation_loss": None,
        "validation_accuracy": None,
        "selection": None,
        "step": epoch,
    }


@pytest.mark.usefixtures("without_tracker_settings")
def test_tracking_logs_failed_retried_and_reused_runs(tiny_recipe: Path, tmp_path: Path) -> None:
    tracking, (first, second) = (
        Tracking(["tensorboard"], tmp_path, workers(tmp_path)),
        make_runs(tiny_recipe, 2),
    )
    for event in (Event(first), Event(first, news=news(1)), Event(first)):
        tracking(event)
    for epoch in range(1, 701):  # more than a pipe holds until the process reads
        tracking(Event(first, news=news(epoch)))
    tracking(Event(first, record=record_without_result(first, "oom", "too large")))
    tracking(
        Event(
            second,
            record=replace(
                record_without_result(second, "ok", ""),
                epochs=(news(1),),
                metrics={"accuracy": 0.5},
            ),
        )
    )
    tracking.finish()
    assert tracking.warnings() == []
    runs = curves(tmp_path)
    assert scalars(runs[first.label], "train/loss") == [(1, 1.0)]
    again = runs[f"{first.label}-attempt2"]
    assert scalars(again, "train/loss") == [
        (epoch, pytest.approx(1 / epoch)) for epoch in range(1, 701)
    ]
    (message,) = again.Tensors("train/message/text_summary")
    assert message.tensor_proto.string_val == [b"too large"]
    assert scalars(runs[second.label], "test/accuracy") == [(1, 0.5)]


@pytest.mark.usefixtures("without_tracker_settings")
def test_failing_tracker_loses_only_its_log(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file"))
    tracking = Tracking(["tensorboard"], tmp_path, workers(tmp_path))
    for run in make_runs(tiny_recipe, 2):
        tracking(Event(run))
        tracking(Event(run, news=news(1)))
        tracking(Event(run, record=record_without_result(run, "ok", "")))
    tracking.finish()
    (warning,) = tracking.warnings()
    assert warning.startswith(
        "tensorboard has no complete log of tiny-lora-seed0 and 1 more: NotADirectoryError"
    )
    assert "\n" not in warning


@pytest.mark.slow
@pytest.mark.usefixtures("without_tracker_settings")
def test_close_leaves_no_tracker_process(tiny_recipe: Path, tmp_path: Path) -> None:
    tracking, (run,) = Tracking(["wandb"], tmp_path, workers(tmp_path)), make_runs(tiny_recipe, 1)
    tracking(Event(run))
    until = time.monotonic() + 60
    while not services():
        assert time.monotonic() < until, "wandb never started"
        time.sleep(0.05)
    tracking.close()
    assert not services()


def test_tracker_names_are_checked_before_training(
    monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    assert parse_trackers(["wandb", "tensorboard", "wandb"]) == ("wandb", "tensorboard")
    with pytest.raises(
        OptionError,
        match=r"^unknown tracker 'wandd'\. Did you mean 'wandb'\? "
        "Allowed: .*mlflow.*tensorboard",
    ):
        parse_trackers(["wandd"])
    with pytest.raises(OptionError, match="unknown tracker"):
        compare(track="tensorbord")
    monkeypatch.setitem(sys.modules, "trackio", None)
    pytester.makepyfile("def test_it(finetune_task): pass")
    result = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", "--peft-track=tensorboard,trackio"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert line.endswith(
        "tracker 'trackio' needs a package that is not installed: "
        'pip install "peft-methods[trackio]"'
    )
