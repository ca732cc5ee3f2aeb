"""The process that logs one run to a tracker through the Trainer's callback for it.

Messages take the Trainer's place. The process is separate from the run's own process, so whatever a
tracker does (import, start a service, wait for a network, fail) costs the run neither time nor
memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from peft_methods.runs.executors.logs import redirect_output
from peft_methods.utils.errors import first_line

PROJECT = "peft-methods"
NICENESS = 10  # training has priority on the cores


@dataclass(frozen=True)
class Run:
    """What a tracker receives at a run's start.

    `folder` holds the tracker's files. `started` is the session's start, as text.
    """

    tracker: str
    name: str
    group: str
    config: dict[str, Any]
    folder: Path
    started: str
    log: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """Values at one step, named as the Trainer's callbacks expect.

    The prefix `eval_` stands for validation and `test_` for test; all others are training values.
    """

    values: dict[str, Any]  # numbers and strings
    step: int = 0
    epoch: float | None = None
    table: tuple[dict[str, Any], ...] = ()  # one row per method; `values` has it as text


@dataclass(frozen=True)
class End:
    """The end of a run; `ok` unless it failed."""

    ok: bool = True


def serve(run: Run, connection: Connection) -> None:
    """Log this process's one run. If that fails, send one line back."""
    os.nice(NICENESS)
    os.environ.clear()
    os.environ.update(run.environment)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no GPU is needed here
    try:
        redirect_output(run.log)
        log_run(run, _messages(connection))
    except Exception as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            connection.send(first_line(error))


def _messages(connection: Connection) -> Iterator[Entry | End]:
    """Yield all messages up to the end.

    A thread empties the pipe at once, because a tracker that hangs must not block the parent. If
    the pipe closes early, the parent is gone or has given up: this process ends at once.
    """
    inbox: SimpleQueue[Entry | End] = SimpleQueue()

    def take() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                inbox.put(connection.recv())
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=take, daemon=True).start()
    return iter(inbox.get, None)


def log_run(run: Run, messages: Iterator[Entry | End]) -> None:
    """Replay a training run's events through the Trainer's callback for this tracker."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _SET_UP.get(run.tracker, _set_up_any)(run)
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import get_reporting_integration_callbacks

    class Arguments(TrainingArguments):
        """Arguments that a callback logs as the run's own specification."""

        def to_dict(self) -> dict[str, Any]:
            return run.config

    # trackio would continue an earlier run of the same name.
    name = f"{run.name}-{run.started}" if run.tracker == "trackio" else run.name
    arguments = Arguments(output_dir=str(run.folder), run_name=name, report_to="none", use_cpu=True)
    arguments.project = PROJECT  # for trackio
    callback = get_reporting_integration_callbacks([run.tracker])[0]()
    state = TrainerState()

    def send(event: str, **more: Any) -> None:
        getattr(callback, event)(arguments, state, TrainerControl(), model=None, **more)

    send("on_init_end")
    send("on_train_begin")
    message = next(messages)
    while isinstance(message, Entry):
        state.global_step, state.epoch = message.step, message.epoch
        send("on_log", logs=dict(message.values) | _table(run.tracker, message.table))
        message = next(messages)
    send("on_train_end")
    if run.tracker == "wandb":
        _finish_wandb(ok=message.ok)


def _table(tracker: str, rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Convert the rows to the tracker's own table type, if it has one."""
    if rows and tracker == "wandb":
        import wandb

        return {
            "test_table": wandb.Table(
                columns=list(rows[0]), data=[list(row.values()) for row in rows]
            )
        }
    if rows and tracker == "trackio":
        import pandas as pd
        import trackio

        return {"test_table": trackio.Table(dataframe=pd.DataFrame(rows))}
    if rows and tracker == "mlflow":
        import mlflow

        mlflow.log_table({name: [row[name] for row in rows] for name in rows[0]}, "comparison.json")
    return {}


def _set_up_tensorboard(run: Run) -> None:
    """Use one folder per run and session: two runs must not be drawn as one curve."""
    root = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", run.folder)).absolute()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(root / run.started / run.group / run.name)


def _set_up_wandb(run: Run) -> None:
    """Log offline unless a mode or a key is set, and never prompt.

    System metrics are off, because they would be sampled while runs train.
    """
    environment = os.environ
    for variable in (
        "WANDB_RUN_ID",
        "WANDB_NAME",
        "WANDB_WATCH",
        "WANDB_LOG_MODEL",
        "WANDB_SERVICE",
    ):
        environment.pop(variable, None)  # they refer to a single run, or to a model
    # wandb creates a folder `wandb` in it.
    environment.setdefault("WANDB_DIR", str(run.folder.parent))
    environment.setdefault("WANDB_PROJECT", PROJECT)
    environment["WANDB_RUN_GROUP"] = run.group
    for variable in ("WANDB_SILENT", "WANDB_X_DISABLE_STATS"):
        environment.setdefault(variable, "true")
    environment.setdefault("WANDB_CONSOLE", "off")
    environment.setdefault("WANDB_ERROR_REPORTING", "false")
    if "WANDB_MODE" not in environment:
        import wandb

        environment["WANDB_MODE"] = (
            "online" if wandb.login(prompt=False, verify=False) else "offline"
        )
        wandb.teardown()  # forget the environment that `login` has read


def _finish_wandb(*, ok: bool) -> None:
    """Close the run and wandb's service process, which the callback leaves open."""
    import wandb

    wandb.finish(exit_code=0 if ok else 1)
    wandb.teardown()


def _set_up_mlflow(run: Run) -> None:
    """Use a local database in the folder unless a server is set."""
    environment = os.environ
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_NESTED_RUN"):
        environment.pop(variable, None)
    if "MLFLOW_TRACKING_URI" not in environment:
        os.chdir(run.folder)  # mlflow writes artifacts there
        environment["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    environment.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    environment.setdefault("MLFLOW_EXPERIMENT_NAME", PROJECT)
    tags = json.loads(environment.get("MLFLOW_TAGS", "{}"))
    environment["MLFLOW_TAGS"] = json.dumps(tags | {"group": run.group})
    import mlflow

    with (run.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # creating the tables twice at once fails
        mlflow.set_experiment(environment["MLFLOW_EXPERIMENT_NAME"])


def _set_up_trackio(run: Run) -> None:
    os.environ.setdefault("TRACKIO_DIR", str(run.folder.absolute()))


def _set_up_any(run: Run) -> None:
    """Run in the tracker's folder, where trackers without settings write their files."""
    os.chdir(run.folder)


_SET_UP: dict[str, Callable[[Run], None]] = {
    "tensorboard": _set_up_tensorboard,
    "wandb": _set_up_wandb,
    "mlflow": _set_up_mlflow,
    "trackio": _set_up_trackio,
}
