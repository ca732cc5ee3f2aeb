"""The process that one run is logged from: the Trainer's own callback for a tracker, fed by messages in the Trainer's place.

It is no part of the cell's process, so whatever a tracker does (import, start a service, wait for a network, fail) costs the
cell neither time nor memory.
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

from peft_methods.errors import first_line
from peft_methods.execution.output import redirect_output

PROJECT = "peft-methods"
PATIENCE = 10  # niceness: training has the cores first


@dataclass(frozen=True)
class Run:
    """What one tracker is told at a run's start. `folder` is the tracker's, for files that it keeps here; `started` names the job."""

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
    """Figures at a step, under the names that the Trainer's callbacks sort by: `eval_` validation, `test_` test, else training."""

    values: dict[str, Any]  # numbers and texts
    step: int = 0
    epoch: float | None = None
    table: tuple[dict[str, Any], ...] = ()  # a row a method, beside the same as text in `values`


@dataclass(frozen=True)
class End:
    """The run is over; `ok` unless the cell failed."""

    ok: bool = True


def serve(run: Run, connection: Connection) -> None:
    """Log the one run that this process is for; one line comes back where that fails."""
    os.nice(PATIENCE)
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
    """All until the end, taken from the pipe at once: a tracker that hangs must not block the parent.

    A pipe that closes before means that the parent is gone or wants no more: this process ends at once.
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
    """The events of a training run, for the Trainer's callback of this tracker."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _SET_UP.get(run.tracker, _set_up_any)(run)
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import get_reporting_integration_callbacks

    class Arguments(TrainingArguments):
        """What a callback logs of a run's arguments is the cell's own spec."""

        def to_dict(self) -> dict[str, Any]:
            return run.config

    name = (
        f"{run.name}-{run.started}" if run.tracker == "trackio" else run.name
    )  # it would go on with a run of the same name
    arguments = Arguments(output_dir=str(run.folder), run_name=name, report_to="none", use_cpu=True)
    arguments.project = PROJECT  # trackio's
    callback = get_reporting_integration_callbacks([run.tracker])[0]()
    state = TrainerState()

    def tell(event: str, **more: Any) -> None:
        getattr(callback, event)(arguments, state, TrainerControl(), model=None, **more)

    tell("on_init_end")
    tell("on_train_begin")
    message = next(messages)
    while isinstance(message, Entry):
        state.global_step, state.epoch = message.step, message.epoch
        tell("on_log", logs=dict(message.values) | _table(run.tracker, message.table))
        message = next(messages)
    tell("on_train_end")
    if run.tracker == "wandb":
        _finish_wandb(ok=message.ok)


def _table(tracker: str, rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The rows as the tracker's own kind of table; where it has none, their text is all there is."""
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
    """A folder a run, in one of its job: runs of the same cell must not be drawn as one curve."""
    root = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", run.folder)).absolute()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(root / run.started / run.group / run.name)


def _set_up_wandb(run: Run) -> None:
    """Offline unless a mode is told or there is a key; it never asks. Nothing of the machine is sampled while cells train."""
    environment = os.environ
    for variable in (
        "WANDB_RUN_ID",
        "WANDB_NAME",
        "WANDB_WATCH",
        "WANDB_LOG_MODEL",
        "WANDB_SERVICE",
    ):
        environment.pop(variable, None)  # they mean one run, or a model that is not here
    environment.setdefault(
        "WANDB_DIR", str(run.folder.parent)
    )  # it makes a folder `wandb` in there
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
        wandb.teardown()  # it has read the environment as it was


def _finish_wandb(*, ok: bool) -> None:
    """Close the run and the service process behind it, which the callback leaves open."""
    import wandb

    wandb.finish(exit_code=0 if ok else 1)
    wandb.teardown()


def _set_up_mlflow(run: Run) -> None:
    """A store in the folder unless a server is told."""
    environment = os.environ
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_NESTED_RUN"):
        environment.pop(variable, None)
    if "MLFLOW_TRACKING_URI" not in environment:
        os.chdir(run.folder)  # artifacts go there
        environment["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    environment.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    environment.setdefault("MLFLOW_EXPERIMENT_NAME", PROJECT)
    tags = json.loads(environment.get("MLFLOW_TAGS", "{}"))
    environment["MLFLOW_TAGS"] = json.dumps(tags | {"group": run.group})
    import mlflow

    with (run.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that make the tables at once fail
        mlflow.set_experiment(environment["MLFLOW_EXPERIMENT_NAME"])


def _set_up_trackio(run: Run) -> None:
    os.environ.setdefault("TRACKIO_DIR", str(run.folder.absolute()))


def _set_up_any(run: Run) -> None:
    """A tracker without settings of its own keeps its files where it is started."""
    os.chdir(run.folder)


_SET_UP: dict[str, Callable[[Run], None]] = {
    "tensorboard": _set_up_tensorboard,
    "wandb": _set_up_wandb,
    "mlflow": _set_up_mlflow,
    "trackio": _set_up_trackio,
}
