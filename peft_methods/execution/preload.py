"""What the process that cells are forked from imports once, so that each of them starts with it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
from collections.abc import Iterator

from peft_methods import nvml
from peft_methods.environment import find_device
from peft_methods.errors import PeftMethodsError
from peft_methods.execution.worker import set_up_compiler, use_one_gpu

CUDA_ERROR_NOT_INITIALIZED = 3  # from cuda.h
NVML_ANSWERS = "PYTORCH_NVML_BASED_CUDA_CHECK"  # what torch reads before it counts GPUs
COMPILERS_OWN = (
    ("torch._inductor.codecache", "torch_key"),
    ("torch._inductor.runtime.triton_compat", "triton_key"),
    ("torch._inductor.codegen.common", "init_backend_registration"),
)


@contextlib.contextmanager
def answered_by_nvml() -> Iterator[None]:
    """Imports that ask about the GPU (bitsandbytes chooses its library so) get their answers without starting CUDA."""
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


def cuda_is_started() -> bool:
    """Whether this process has started CUDA, as whatever an import called may have done."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != CUDA_ERROR_NOT_INITIALIZED)


def warm_compiler() -> None:
    """What torch's compiler would do anew in every process: digests of its and Triton's code, what makes and starts its kernels."""
    for module, name in COMPILERS_OWN:
        with contextlib.suppress(
            Exception
        ):  # these names may change; what is amiss with one shows where it compiles
            getattr(importlib.import_module(module), name)()
    with contextlib.suppress(Exception):
        importlib.import_module(
            "torch.distributed.tensor.experimental"
        )  # dynamo's first graph would


set_up_compiler()
use_one_gpu()
logging.getLogger("bitsandbytes").setLevel(
    logging.ERROR
)  # it warns of an optional package at import
with answered_by_nvml():
    with contextlib.suppress(Exception):  # said where it is needed
        import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    from peft_methods.cells import PIPELINE
    from peft_methods.code_fingerprint import code_fingerprint
    from peft_methods.engines.registry import MODULES
    from peft_methods.methods import METHODS

    if find_device() != "cpu":
        warm_compiler()

# The code that runs will use is that of now. Forked processes need not parse it again.
for root in (PIPELINE, *MODULES.values(), *(METHODS[name] for name in METHODS)):
    with contextlib.suppress(PeftMethodsError):  # its runs report it
        code_fingerprint(root)

UNFIT_TO_FORK = (
    find_device() != "cpu" and cuda_is_started()
)  # a forked process could not start it again
gc.collect()
gc.freeze()  # what was imported is never garbage: collections in the children leave these pages shared
