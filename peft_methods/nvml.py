"""The GPU as its driver sees it (NVML, imported as pynvml): state, energy, memory by process. Whatever it will not tell is None."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

SAMPLE_SECONDS = 0.01
THROTTLED = {  # NVML's bits that mean "slower than it could be"; the power cap is how a busy GPU works, so it is apart
    "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "hardware thermal": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "software thermal": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
    "power cap": "nvmlClocksThrottleReasonSwPowerCap",
}


def _asked(call: Callable[..., Any], *arguments: Any) -> Any:
    """The call's answer, None where this device or driver has none."""
    import pynvml

    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def visible_gpus() -> int:
    """How many GPUs the driver shows; 0 without a driver, or with one too old to be asked."""
    import pynvml

    if _asked(_initialised) is None:
        return 0
    return _asked(pynvml.nvmlDeviceGetCount) or 0


def gpu_name() -> str | None:
    """The name of the first GPU that CUDA_VISIBLE_DEVICES leaves, without torch; None without a driver."""
    import pynvml

    name = _asked_of_first(pynvml.nvmlDeviceGetName)
    return _text(name) if name else None


def compute_capability() -> tuple[int, int] | None:
    """That GPU's, without CUDA; None without a driver."""
    import pynvml

    found = _asked_of_first(pynvml.nvmlDeviceGetCudaComputeCapability)
    return (int(found[0]), int(found[1])) if found else None


def uuid_of(name: str) -> str | None:
    """Return the UUID of the GPU that an entry of CUDA_VISIBLE_DEVICES names; None if unknown.

    `name` is an index, or a UUID, which is returned as it is.
    """
    import pynvml

    if name.startswith(("GPU-", "MIG-")):
        return name
    if not name.isdecimal() or not visible_gpus():
        return None
    handle = _asked(pynvml.nvmlDeviceGetHandleByIndex, int(name))
    uuid = _asked(pynvml.nvmlDeviceGetUUID, handle) if handle else None
    return _text(uuid) if uuid else None


def _asked_of_first(call: Callable[[Any], Any]) -> Any:
    import pynvml

    if not visible_gpus():
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    by_uuid = first.startswith(("GPU-", "MIG-"))
    handle = _asked(pynvml.nvmlDeviceGetHandleByUUID, first) if by_uuid else None
    handle = handle or _asked(
        pynvml.nvmlDeviceGetHandleByIndex, int(first) if first.isdecimal() else 0
    )
    return _asked(call, handle) if handle else None


def _initialised() -> bool:
    import pynvml

    pynvml.nvmlInit()  # counted by the library: once more costs nothing
    return True


def levels() -> dict[str, int]:
    """Bytes in use on every GPU by its UUID; ask before this process touches CUDA, whose context takes its share."""
    import pynvml

    found: dict[str, int] = {}
    for index in range(visible_gpus()):
        handle = _asked(pynvml.nvmlDeviceGetHandleByIndex, index)
        uuid, memory = (
            _asked(pynvml.nvmlDeviceGetUUID, handle),
            _asked(pynvml.nvmlDeviceGetMemoryInfo, handle),
        )
        if uuid and memory:
            found[_text(uuid)] = int(memory.used)
    return found


def _text(answer: str | bytes) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


class Gpu:
    """One GPU, found by the UUID that torch gives for it (an index would be another one under CUDA_VISIBLE_DEVICES)."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        _initialised()
        self.uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        self._nvml: Any = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)

    @classmethod
    def current(cls) -> Gpu | None:
        """The GPU that torch computes on; None where NVML cannot be asked for it."""
        import pynvml
        import torch

        uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
        try:
            return None if uuid is None else cls(str(uuid))
        except pynvml.NVMLError:
            return None

    def state(self) -> dict[str, Any]:
        """Clocks (MHz), temperature (Celsius), power (watts), memory (bytes), reasons to be slow, other processes: now."""
        nvml, handle = self._nvml, self._handle
        memory = _asked(nvml.nvmlDeviceGetMemoryInfo, handle)
        return {
            "sm_clock_mhz": _asked(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": _asked(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "temperature_celsius": _asked(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "power_watts": _scaled(_asked(nvml.nvmlDeviceGetPowerUsage, handle), 1e-3),
            "power_limit_watts": _scaled(
                _asked(nvml.nvmlDeviceGetEnforcedPowerLimit, handle), 1e-3
            ),
            "throttle_reasons": self.throttle_reasons(),
            "memory_total_bytes": memory.total if memory else None,
            "memory_used_bytes": memory.used if memory else None,
            "other_processes": [pid for pid in self._bytes_by_process() if pid != os.getpid()],
        }

    def throttle_reasons(self) -> list[str]:
        """Names of what slows the clocks at this moment."""
        bits = _asked(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle) or 0
        return [
            name for name, constant in THROTTLED.items() if bits & getattr(self._nvml, constant, 0)
        ]

    def driver(self) -> str | None:
        """The driver's version."""
        version = _asked(self._nvml.nvmlSystemGetDriverVersion)
        return _text(version) if version else None

    def energy_joules(self) -> float | None:
        """The energy counter since the driver was loaded; None where the device has none."""
        return _scaled(_asked(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle), 1e-3)

    def own_bytes(self) -> int | None:
        """Memory that this process holds on the device; None where its pid is hidden (containers do that)."""
        return self._bytes_by_process().get(os.getpid())

    def used_bytes(self) -> int | None:
        """Memory that anyone holds on the device."""
        memory = _asked(self._nvml.nvmlDeviceGetMemoryInfo, self._handle)
        return int(memory.used) if memory else None

    def _bytes_by_process(self) -> dict[int, int | None]:
        found = _asked(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or []
        return {process.pid: process.usedGpuMemory for process in found}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


class DeviceMemory:
    """The process's own memory on the device, context and all, as the driver sees it: sampled in the background.

    Where the container hides pids it is the device's total above its level at the start, and `kind` says so.
    """

    def __init__(
        self, gpu: Gpu, *, level_at_start: int | None, interval: float = SAMPLE_SECONDS
    ) -> None:
        self._base = 0
        self._read: Callable[[], int | None] = gpu.own_bytes
        self.kind = "this process on the device, by NVML"
        if gpu.own_bytes() is None:
            self._read, self._base = gpu.used_bytes, level_at_start or 0
            self.kind = "whole device above its level at the start, by NVML (pids are hidden here)"
        self._interval, self._highest, self._done = interval, self._now(), threading.Event()

    def start(self) -> None:
        """Forget the highest sample so far."""
        self._highest = self._now()

    def read(self) -> float | None:
        """The highest sample since `start`, bytes."""
        self._sample()
        return self._highest

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample in a thread as long as this lasts."""
        thread = threading.Thread(target=self._sample_until_done, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _sample_until_done(self) -> None:
        while not self._done.wait(self._interval):
            self._sample()

    def _now(self) -> float | None:
        level = self._read()
        return None if level is None else max(0, level - self._base)

    def _sample(self) -> None:
        now = self._now()
        if now is not None and (self._highest is None or now > self._highest):
            self._highest = now


class Energy:
    """Joules between `start` and `read`, from the device's counter."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._from = gpu, gpu.energy_joules()

    def start(self) -> None:
        """Count from here."""
        self._from = self._gpu.energy_joules()

    def read(self) -> float | None:
        """Joules since `start`; None without a counter."""
        now = self._gpu.energy_joules()
        return None if now is None or self._from is None else now - self._from


class Throttling:
    """Whether anything slowed the clocks between `start` and `read`, from two looks at the violation clocks.

    NVML counts the nanoseconds that power and heat held the clocks down, so nothing between two looks is missed.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._from = self._thermal_seconds()

    def start(self) -> None:
        """Count from here."""
        self._from = self._thermal_seconds()

    def read(self) -> float | None:
        """Seconds of thermal slowdown since `start`; None where the device does not count them."""
        now = self._thermal_seconds()
        return None if now is None or self._from is None else now - self._from

    def _thermal_seconds(self) -> float | None:
        nvml: Any = self._gpu._nvml
        found = _asked(
            nvml.nvmlDeviceGetViolationStatus, self._gpu._handle, nvml.NVML_PERF_POLICY_THERMAL
        )
        return None if found is None else found.violationTime * 1e-9
