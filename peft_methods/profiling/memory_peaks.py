"""Peak memory of a run by phase, and the parts of the peak."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peft_methods.profiling.metrics import MEMORY_PARTS, MEMORY_PHASES
from peft_methods.profiling.phases import PhaseMeter
from peft_methods.training.registry import ENGINE_PHASES

# The warm-up's last step is on the longest batch, so it belongs to the training peak.
TRAINING = ("warm_up", "train")
# After these phases the engine holds memory that the method alone does not need.
KEEPING = tuple(phase.name for phase in ENGINE_PHASES if phase.keeps_memory)


class MemoryPeaks:
    """Peak memory of a method, without the memory that only the engine needs.

    `parts` is the breakdown of the peak step. `engine_tensors` are tensors that the engine keeps
    on the device; they are referenced here to the end, so they can be subtracted from every later
    peak, even after the engine is gone.
    """

    def __init__(self, meter: PhaseMeter) -> None:
        self._meter = meter
        self.parts: dict[str, int] = {}
        self.engine_tensors: Sequence[torch.Tensor] = ()

    def engine_keeps_memory(self) -> bool:
        """Whether the engine has entered a phase from which on it holds memory for itself."""
        return self._meter.peak(*KEEPING) is not None

    def training_phases(self) -> tuple[str, ...]:
        """Return the phases whose peak is the method's training peak.

        If the engine keeps memory, it is only the warm-up before that: later steps would include
        the engine's memory.
        """
        return ("warm_up",) if self.engine_keeps_memory() else TRAINING

    def metrics(self) -> dict[str, float | None]:
        """Return all memory metrics; None for those that this device does not have."""
        phases = {"load": ("load",), "train": TRAINING, "evaluate": ("evaluate",)}
        method_phases = {**phases, "train": self.training_phases()}
        meter = self._meter
        found: dict[str, float | None] = {}
        for phase in MEMORY_PHASES:
            found[f"{phase}_allocated_bytes"] = meter.peak(*method_phases[phase])
            found[f"{phase}_reserved_bytes"] = meter.highest("reserved", *method_phases[phase])
            found[f"{phase}_device_bytes"] = meter.highest("device", *phases[phase])
        if found["evaluate_allocated_bytes"] is not None:
            found["evaluate_allocated_bytes"] -= sum(t.nbytes for t in self.engine_tensors)
        found["engine_reserved_bytes"] = (
            meter.highest("reserved", *KEEPING, "train") if self.engine_keeps_memory() else None
        )
        peak = found["peak_memory_bytes"] = found["train_allocated_bytes"]
        parts = self.parts
        if parts and peak is not None:
            parts = {**parts, "unattributed": int(peak) - sum(parts.values())}
        return found | {f"{part}_bytes": parts.get(part) for part in MEMORY_PARTS}


def share(part: float | None, whole: float) -> float | None:
    """Return `part / whole`; None if either is missing or zero."""
    return None if part is None or not whole else part / whole
