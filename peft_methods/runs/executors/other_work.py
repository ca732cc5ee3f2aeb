"""Work of a worker that is neither a run nor the check of a recipe."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from peft_methods.runs import late_process
from peft_methods.runs.late_questions import LateJob
from peft_methods.runs.tracking import tracker_process


def serve_other(job: Any, connection: Connection) -> bool:
    """Do a job if it is such work. Returns whether it is."""
    if isinstance(job, tracker_process.Run):
        tracker_process.serve(job, connection)
    elif isinstance(job, LateJob):
        late_process.serve(job, connection)
    else:
        return False
    return True
