"""A process that does one run after another: what it keeps, and whether each run left it clean."""

from __future__ import annotations

import gc
import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from peft_methods.runs.isolation.kept import Kept, without_seed
from peft_methods.runs.isolation.memory import MemoryLeft, free_all
from peft_methods.runs.isolation.state import State, changes, process_state
from peft_methods.runs.prepare import set_up_process
from peft_methods.runs.spec import RunSpec
from peft_methods.training.cuda_graphs.compile import count_compiled_anew, forget_compiled


class RunProcess:
    """This process, in which runs follow one another.

    Between two of them it keeps its imports, the CUDA context, the rows of the last run and, for a
    run that differs only in its seed, the compiled code. Settings that runs set on purpose are
    reset. All else is compared with what it was before the run.
    """

    def __init__(self) -> None:
        self.runs = 0  # that have ended
        self.kept = Kept()
        self._compiled: RunSpec | None = None
        self._memory = MemoryLeft()
        self._before: State = {}
        self._random, self._path = _RandomState.now(), list(sys.path)

    def begin(self, run: RunSpec, threads: int) -> None:
        """Get ready for a run, and remember the state of the process."""
        wanted = without_seed(run)
        # Not before the first run, since resetting the compiler asks CUDA for its devices: ranks
        # that this process forks afterwards could not use CUDA.
        if self._compiled is not None and self._compiled != wanted:
            forget_compiled()
        self._compiled = wanted
        count_compiled_anew()
        set_up_process(threads, device=run.device, deterministic=run.deterministic)
        _reset_settings()
        self._before = process_state()

    def end(self) -> list[str]:
        """Free what the last run needed, reset settings, and describe what it has left behind."""
        self.runs += 1
        _reset_settings()
        free_all()
        self._random.restore()
        sys.path[:] = self._path  # the compiler adds a folder
        left = [
            *changes(self._before, process_state()),
            *self._memory.left_behind(),
            *self.kept.left_behind(),
        ]
        gc.freeze()  # collections during the next run need not scan what libraries have kept
        return left


def _reset_settings() -> None:
    """Set what every run sets on purpose to what it is before any."""
    from accelerate.state import AcceleratorState, GradientState

    torch.set_float32_matmul_precision("highest")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@dataclass(frozen=True)
class _RandomState:
    """The states of the random generators of Python, NumPy and torch on the host."""

    python: Any
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def now(cls) -> _RandomState:
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Restore them. The generators of GPUs get the seed of torch's."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(torch.initial_seed())
