"""Submission of job arrays through submitit."""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.process import blocked
from peft_methods.runs.executors.slurm.commands import SlurmError, reason_of
from peft_methods.runs.executors.slurm.files import TOKEN
from peft_methods.runs.executors.slurm.request import MOST_JOBS, SlurmRequest

JOB_NAME = "peft-methods"
WITHOUT_VALUE = "true"  # exclusive=true is --exclusive
WITHOUT_END = 10**6  # requeues for which submitit counts; a run that makes no progress ends anyway
CHECK = """[ "$(cat {token} 2>/dev/null)" = {value} ] || exit 66
[ -x {python} ] || exit 67"""


def submit(
    calls: Sequence[Any],
    needs: Resources,
    request: SlurmRequest,
    folder: Path,
    minutes: int,
) -> list[str]:
    """Submit calls with equal needs as one array; return the ids of their jobs.

    Raises `SlurmError` with sbatch's reason if it refuses them.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from peft_methods.runs.executors.slurm.node import WARNING_SECONDS

    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor = SlurmExecutor(folder, max_num_timeout=WITHOUT_END)
    executor.update_parameters(
        **_parameters(needs, request),
        time=minutes,
        signal_delay_s=WARNING_SECONDS,
        setup=_setup(folder),
    )
    # An interrupt could lose the id of a submitted job. submitit prints errors as well.
    with blocked(SIGINT, SIGTERM), redirect_stderr(io.StringIO()):
        try:
            return [job.job_id for job in executor.submit_array(calls)]
        except (FailedJobError, FailedSubmissionError) as error:
            raise SlurmError(reason_of(str(error))) from None


def _parameters(needs: Resources, request: SlurmRequest) -> dict[str, Any]:
    """Return submitit's parameters for jobs with these needs."""
    kind = f":{request.gpu}" if request.gpu else ""
    asked = {
        "name": JOB_NAME,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "mem": request.mem,
        "gres": f"gpu{kind}:{needs.gpus}" if needs.gpus else None,
    }
    named = {"job_name" if key == "name" else key: value for key, value in asked.items() if value}
    return {
        **named,
        "cpus_per_task": needs.threads,
        "array_parallelism": request.parallel or MOST_JOBS,
        "stderr_to_stdout": True,
        # srun takes the number of cores from its own parameter alone.
        "srun_args": [f"--cpus-per-task={needs.threads}"],
        "additional_parameters": {
            "requeue": True,
            **{key: True if value == WITHOUT_VALUE else value for key, value in request.extra},
        },
    }


def _setup(folder: Path) -> list[str]:
    """Return shell lines that check the node and give it this process's search path."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    token = folder / TOKEN
    check = CHECK.format(
        token=shlex.quote(str(token)),
        value=token.read_text(encoding="utf-8"),
        python=shlex.quote(sys.executable),
    )
    return [*check.splitlines(), f"export PYTHONPATH={shlex.quote(path)}"]
