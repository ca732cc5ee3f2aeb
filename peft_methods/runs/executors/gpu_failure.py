"""Failures of a GPU, as opposed to those of the run on it: by CUDA's messages and by NVML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peft_methods.profiling.nvml import PREFIXES, query
from peft_methods.utils.errors import first_line

# What torch, CUDA and NVML say if the GPU itself, its link or its driver failed, in lower case.
# Messages that a run can cause are not here: illegal memory accesses, device-side asserts, launch
# failures and timeouts. For those NVML is asked whether the GPU still answers.
OF_THE_GPU = (
    "uncorrectable ecc error",  # Xid 48, 63, 64, 94, 95
    "uncorrectable nvlink error",  # Xid 74
    "hardware error",  # CUDA's error 721: contained by the GPU
    "gpu is lost",  # NVML: Xid 79, the GPU has fallen off the bus
    "device is lost",
    "gpu requires re",  # NVML: "restart" or "reset", after Xid 95, 119, 120 or 154
    "no cuda-capable device is detected",  # CUDA's error 100
    "cuda-capable device(s) is/are busy or unavailable",  # 46: in exclusive use by others
    "all cuda-capable devices are busy or unavailable",
    "device not ready for use",
    "system not yet initialized",  # 802: the fabric manager does not run
    "system has unsupported display driver",  # 803
    "no cuda gpus are available",  # torch, if CUDA counts none
)
NVML_CODES = ("GPU_IS_LOST", "RESET_REQUIRED", "UNKNOWN", "IRQ_ISSUE", "CORRUPTED_INFOROM")


def gpu_failure(error: BaseException) -> str:
    """Return how a GPU failed, if that is the cause of an error, else an empty text."""
    for one in _chain(error):
        text = str(one).casefold()
        if any(words in text for words in OF_THE_GPU):
            return first_line(one)
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class GpuHealth:
    """Asks the driver whether GPUs still answer. A GPU that it never knew counts as well.

    The handles are taken at once: after a GPU was lost, NVML may refuse those of all others too.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        import pynvml

        known = [uuid for uuid in uuids if uuid.startswith(PREFIXES)]
        if known and query(lambda: pynvml.nvmlInit() or True) is None:
            known = []
        handles = {uuid: query(pynvml.nvmlDeviceGetHandleByUUID, uuid) for uuid in known}
        self._handles: dict[str, Any] = {uuid: one for uuid, one in handles.items() if one}

    def problem(self, uuid: str) -> str:
        """Return NVML's error for a GPU that does not answer any more, else an empty text."""
        import pynvml

        handle = self._handles.get(uuid)
        if handle is None:
            return ""
        try:
            pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError as error:
            codes = {getattr(pynvml, f"NVML_ERROR_{name}") for name in NVML_CODES}
            return f"NVML: {error}" if error.value in codes else ""
        return ""
