"""Failures as values: an error of a worker, as a message for its record."""

from __future__ import annotations

import traceback

from peft_methods.runs.executors.gpu_failure import gpu_failure
from peft_methods.runs.executors.jobs import Failure
from peft_methods.utils.errors import (
    PeftMethodsError,
    first_line,
    is_out_of_memory,
    is_transient,
)

# If more bytes than this on the GPU are not this process's tensors, other processes use the GPU.
# This process's own CUDA context and libraries take less.
MEMORY_OF_OTHERS = 2 * 2**30


def failure_of(error: Exception) -> Failure:
    """Describe an error, and print its traceback to the log."""
    traceback.print_exc()
    by_user = isinstance(error, PeftMethodsError)
    setting = error.setting if isinstance(error, PeftMethodsError) else ""
    message = str(error) if by_user else first_line(error)
    return Failure(
        message,
        by_user,
        may_pass(error),
        setting,
        gpu_failure=gpu_failure(error),
        status="oom" if is_out_of_memory(error) else "failed",
    )


def may_pass(error: Exception) -> bool:
    """Whether a retry may succeed, for example when others have freed memory on the GPU."""
    if not is_out_of_memory(error):
        return is_transient(error)
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() > MEMORY_OF_OTHERS
