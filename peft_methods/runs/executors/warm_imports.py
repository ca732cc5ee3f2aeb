"""Imports that the fork server does once, so that every forked process starts with them."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
from collections.abc import Iterator

from peft_methods.methods.registry import METHODS
from peft_methods.profiling import nvml
from peft_methods.profiling.environment import find_device
from peft_methods.profiling.gpus import cuda_is_started
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.executors.worker import set_up_compiler
from peft_methods.runs.spec import PIPELINE
from peft_methods.training.registry import ENGINES
from peft_methods.utils.errors import PeftMethodsError

NVML_ANSWERS = "PYTORCH_NVML_BASED_CUDA_CHECK"  # torch reads it before it counts GPUs
COMPILER_CACHES = (
    ("torch._inductor.codecache", "torch_key"),
    ("torch._inductor.runtime.triton_compat", "triton_key"),
    ("torch._inductor.codegen.common", "init_backend_registration"),
)


@contextlib.contextmanager
def answered_by_nvml() -> Iterator[None]:
    """Context manager: answer questions about the GPU through NVML, without starting CUDA.

    Some imports ask: bitsandbytes chooses its library by compute capability.
    """
    import torch

    ask_cuda, before = torch.cuda.get_device_capability, os.environ.get(NVML_ANSWERS)
    os.environ[NVML_ANSWERS] = "1"
    if (known := nvml.compute_capability()) is not None:
        torch.cuda.get_device_capability = lambda device=None: known
    try:
        yield
    finally:
        torch.cuda.get_device_capability = ask_cuda
        os.environ.pop(NVML_ANSWERS) if before is None else os.environ.update(
            {NVML_ANSWERS: before}
        )


def warm_compiler() -> None:
    """Compute the parts of torch's compiler that every process would otherwise compute.

    These are the hashes of its and Triton's source code, and the code that builds and launches
    kernels.
    """
    for module, name in COMPILER_CACHES:
        # These names may change. Real errors appear when the compiler runs.
        with contextlib.suppress(Exception):
            getattr(importlib.import_module(module), name)()
    with contextlib.suppress(Exception):
        # dynamo imports it for its first graph
        importlib.import_module("torch.distributed.tensor.experimental")


# Collections would traverse the objects of all imports again and again, for hardly any garbage
# (9 MB of 580, in pages that the forked processes share): they took a fifth of the time.
gc.disable()
set_up_compiler()
# bitsandbytes warns about an optional package at import.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
with answered_by_nvml():
    with contextlib.suppress(Exception):  # reported by the methods that need it
        import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    import peft_methods.runs.pipeline
    import peft_methods.training.trainer.loop  # noqa: F401  # transformers' Trainer and its imports

    if find_device() != "cpu":
        warm_compiler()

# The code that runs will use is that of now. Forked processes need not parse it again.
for root in (PIPELINE, *ENGINES.values(), *(METHODS[name] for name in METHODS)):
    with contextlib.suppress(PeftMethodsError):  # its runs report it
        code_fingerprint(root)

# CUDA cannot be used in a forked process if it was started before the fork.
UNFIT_TO_FORK = find_device() != "cpu" and cuda_is_started()
# Imported objects are never garbage. Frozen, their pages stay shared with the forked processes.
gc.freeze()
gc.enable()
