"""The state of a process that a run could change: settings, hooks, registries, library code.

It is read before and after each run and compared. What should be the same and is not is named.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.modules.module as module_hooks
import torch.optim.optimizer as optimizer_hooks
from torch import nn

State = Mapping[str, Any]
CODE = (FunctionType, staticmethod, classmethod, property)
COMPILER_CONFIGS = ("torch._dynamo.config", "torch._inductor.config")
PRECISIONS = (
    "fp32_precision",
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)
PEFT_MAPPINGS = ("PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING")
# The first wakes up every ten seconds. The second are autograd's, the third the compiler's: they
# wait for work as long as the process lasts.
IDLE_THREADS = ("tqdm_monitor", "Dummy-", "ThreadPoolExecutor-")
MADE_BY_COMPILER = ("torch.fx.", "torch._", "torch.jit.")  # modules of classes made at run time
LONGEST = 60  # characters of a value in a description


def process_state() -> State:
    """Return everything that is compared, by name."""
    parts = (_torch, _autograd, _cuda, _compiler, _hooks, _registries, _accelerate, _python, _code)
    return {name: value for part in parts for name, value in part().items()}


def changes(before: State, after: State) -> list[str]:
    """Describe what differs. A name that only one of them has is skipped: a module came later."""
    return [
        f"{name} was {_short(before[name])} and is {_short(after[name])}"
        for name in before
        if name in after and before[name] != after[name]
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _torch() -> dict[str, Any]:
    """Return torch's global settings. Those of newer versions are skipped in older ones."""
    backends: Any = torch.backends
    found: dict[str, Any] = {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": str(torch.get_default_device()),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.get_num_interop_threads()": torch.get_num_interop_threads(),
        "torch.are_deterministic_algorithms_enabled()": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "torch.backends.cudnn": tuple(
            (name, getattr(backends.cudnn, name))
            for name in ("enabled", "benchmark", "deterministic", "benchmark_limit")
        ),
        "torch.backends.cuda (attention)": (
            backends.cuda.flash_sdp_enabled(),
            backends.cuda.mem_efficient_sdp_enabled(),
            backends.cuda.math_sdp_enabled(),
            backends.cuda.cudnn_sdp_enabled(),
        ),
        "torch.backends.mkldnn.enabled": backends.mkldnn.enabled,
        "torch.distributed": torch.distributed.is_available()
        and torch.distributed.is_initialized(),
    }
    for place in (backends.cuda.matmul, backends.cudnn, getattr(backends.cudnn, "conv", None)):
        for name in PRECISIONS:
            # Where both torch's old and new settings were used, reading an old one raises an error.
            with contextlib.suppress(AttributeError, AssertionError, RuntimeError):
                found[f"{name} of {type(place).__name__}"] = getattr(place, name)
    return found


def _autograd() -> dict[str, Any]:
    """Return the modes that code runs in."""
    found: dict[str, Any] = {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "torch.is_anomaly_enabled()": torch.is_anomaly_enabled(),
        "torch.is_autocast_cache_enabled()": torch.is_autocast_cache_enabled(),
    }
    for kind in ("cpu", "cuda"):
        found[f"autocast on {kind}"] = (
            torch.is_autocast_enabled(kind),
            torch.get_autocast_dtype(kind),
        )
    for name in ("_len_torch_function_stack", "_len_torch_dispatch_stack"):
        if hasattr(torch._C, name):
            found[f"modes ({name})"] = getattr(torch._C, name)()
    return found


def _cuda() -> dict[str, Any]:
    """Return the current device and stream, if CUDA is in use."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    stream = torch.cuda.current_stream()
    return {
        "torch.cuda.current_device()": torch.cuda.current_device(),
        "torch.cuda.current_stream()": stream == torch.cuda.default_stream(),
    }


def _compiler() -> dict[str, Any]:
    """Return the settings of torch's compiler, as far as it is imported."""
    found: dict[str, Any] = {}
    for name in COMPILER_CONFIGS:
        config: Any = sys.modules.get(name)
        if hasattr(config, "get_config_copy"):
            values = config.get_config_copy()
            found |= {f"{name}.{key}": repr(value) for key, value in values.items()}
    frames: Any = sys.modules.get("torch._dynamo.eval_frame")
    if hasattr(frames, "_stance"):
        found["torch.compiler.set_stance()"] = repr(frames._stance)
    return found


def _hooks() -> dict[str, Any]:
    """Return the hooks that every module and optimizer calls."""
    found: dict[str, Any] = {}
    for place in (module_hooks, optimizer_hooks):
        for name, hooks in vars(place).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                found[f"{place.__name__}.{name}"] = tuple(hooks.values())
    saved: Any = torch._C._autograd
    found["hooks on saved tensors"] = (
        saved._saved_tensors_hooks_is_enabled(),
        saved._top_saved_tensors_default_hooks(True),
    )
    return found


def _registries() -> dict[str, Any]:
    """Return what models and methods are registered with transformers and PEFT."""
    import peft.mapping
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found: dict[str, Any] = {
        "transformers.AttentionInterface": dict(AttentionInterface._global_mapping),
        "transformers.AttentionMaskInterface": dict(AttentionMaskInterface._global_mapping),
        "transformers' attention": dict(ALL_ATTENTION_FUNCTIONS._local_mapping),
        "transformers' masks": dict(ALL_MASK_ATTENTION_FUNCTIONS._local_mapping),
    }
    for name in PEFT_MAPPINGS:
        found[f"peft.{name}"] = dict(getattr(peft.mapping, name, {}))
    return found


def _accelerate() -> dict[str, Any]:
    """Return the precision and devices that accelerate has fixed for the process."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    return {
        f"accelerate.{kind.__name__}": sorted(kind._shared_state)
        for kind in (PartialState, AcceleratorState, GradientState)
    }


def _python() -> dict[str, Any]:
    """Return the settings of Python and of the operating system."""
    import numpy as np

    return {
        "signal handlers": [signal.getsignal(one) for one in sorted(signal.valid_signals())],
        "the level of logging": logging.getLogger().level,
        "numpy.geterr()": np.geterr(),
        "threads of Python": sorted(
            one.name for one in threading.enumerate() if not one.name.startswith(IDLE_THREADS)
        ),
        "child processes": _children(),
    }


def _children() -> str:
    file = Path("/proc/self/task") / str(os.getpid()) / "children"
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""


def _code() -> dict[str, Any]:
    """Return the functions of torch, of every class of modules and of every optimizer."""
    found = {**_functions("torch.nn.functional", F), **_functions("torch", torch)}
    for base in (nn.Module, torch.optim.Optimizer, torch.Tensor):
        for kind in (base, *_subclasses(base)):
            if not kind.__module__.startswith(MADE_BY_COMPILER):
                found |= _functions(f"{kind.__module__}.{kind.__qualname__}", kind)
    return found


def _functions(name: str, place: type | ModuleType) -> dict[str, Any]:
    return {
        f"{name}.{key}": _original(value)
        for key, value in vars(place).items()
        if isinstance(value, CODE)
    }


def _original(function: Any) -> Any:
    """Return the function that torch itself has wrapped, at the first use of a class or a compiler.

    These are the step of an optimizer, and how dynamo counts new modules. torch 2.11 to 2.13.
    """
    if getattr(function, "hooked", False):
        return function.__wrapped__
    if getattr(function, "__module__", "") == "torch._dynamo.mutation_guard":
        inner = [cell.cell_contents for cell in function.__closure__ or ()]
        return next((one for one in inner if callable(one)), function)
    return function


def _subclasses(base: type) -> Iterator[type]:
    seen: set[type] = set()
    waiting = [base]
    while waiting:
        below: list[type] = type.__subclasses__(waiting.pop())
        new = [kind for kind in below if kind not in seen]
        seen.update(new)
        waiting += new
        yield from new
