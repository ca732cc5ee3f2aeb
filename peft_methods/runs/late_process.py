"""The process that answers questions about the cost of ended runs."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from peft_methods.runs.executors.logs import redirect_output
from peft_methods.runs.late_questions import LateJob


def serve(job: LateJob, connection: Connection) -> None:
    """Send the number of each question with its prediction, as soon as it is made."""
    os.environ.clear()
    os.environ.update(job.environment)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no GPU is needed here
    os.chdir(job.directory)
    redirect_output(job.log)
    import torch

    from peft_methods.runs.predicting import LatePredictor

    torch.set_num_threads(job.threads)
    predictor = LatePredictor()
    for question in job.questions:
        connection.send((question.number, predictor.answer(question)))
