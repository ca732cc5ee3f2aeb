"""Monitor of the GPU during a run: its memory, energy, throttling and state."""

from __future__ import annotations

import contextlib
from typing import Any

from peft_methods.profiling import device_memory, nvml
from peft_methods.profiling.memory import ReservedMemory
from peft_methods.profiling.phases import Sensor, ThreadTime


class DeviceMonitor:
    """Sensors of the device, and the GPU's state before and after a run.

    Create the first one before this process uses CUDA: the memory in use is read then. `levels`
    hands it on to the monitors of later runs of the process.
    """

    def __init__(self, *, cuda: bool, levels: dict[str, int] | None = None) -> None:
        self._levels = {} if levels is None else levels
        self._gpu: nvml.Gpu | None = None
        self._memory: device_memory.DeviceMemory | None = None
        self.sensors: dict[str, Sensor] = self._gpu_sensors() if cuda else {"busy": ThreadTime()}
        self._state_before = self._gpu.state() if self._gpu else None

    def _gpu_sensors(self) -> dict[str, Sensor]:
        if not self._levels:
            self._levels.update(nvml.used_bytes_by_uuid())
        sensors: dict[str, Sensor] = {"reserved": ReservedMemory()}
        self._gpu = nvml.Gpu.current()
        if self._gpu is not None:
            self._memory = device_memory.DeviceMemory(
                self._gpu, level_at_start=self._levels.get(self._gpu.uuid)
            )
            sensors |= {
                "device": self._memory,
                "energy": nvml.Energy(self._gpu),
                "heat": nvml.Throttling(self._gpu),
            }
        return sensors

    def sampling(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that samples device memory in the background, if possible."""
        return self._memory.sampling() if self._memory else contextlib.nullcontext()

    def environment(self) -> dict[str, Any]:
        """Return the meaning of device memory values, and the GPU's state before and after."""
        return {
            "device_memory_kind": self._memory.kind if self._memory else None,
            "gpu": {"before": self._state_before, "after": self._gpu.state()}
            if self._gpu
            else None,
        }
