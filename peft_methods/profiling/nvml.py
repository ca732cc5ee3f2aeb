"""GPU state, energy and memory by process from the driver (NVML, imported as pynvml).

Values that a device or driver does not report are None.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

PREFIXES = ("GPU-", "MIG-")  # of UUIDs
# NVML's bits for "slower than possible". A busy GPU normally works at its power cap.
THROTTLED = {
    "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "hardware thermal": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "software thermal": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
    "power cap": "nvmlClocksThrottleReasonSwPowerCap",
}


def query(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of an NVML call; None if the device or driver does not support it."""
    import pynvml

    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def visible_gpus() -> int:
    """Return the number of GPUs that the driver shows; 0 without a driver, or if it is too old."""
    import pynvml

    if query(_initialize) is None:
        return 0
    return query(pynvml.nvmlDeviceGetCount) or 0


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, without torch; None without a driver."""
    import pynvml

    if not visible_gpus():
        return None
    version = query(pynvml.nvmlSystemGetDriverVersion)
    return text_of(version) if version else None


def compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the same GPU, without CUDA; None without a driver."""
    import pynvml

    handle = _first_gpu()
    found = query(pynvml.nvmlDeviceGetCudaComputeCapability, handle) if handle else None
    if not found and handle:  # a MIG slice, whose GPU is asked
        whole = query(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
        found = query(pynvml.nvmlDeviceGetCudaComputeCapability, whole) if whole else None
    return (int(found[0]), int(found[1])) if found else None


def _first_gpu() -> Any:
    """Return the handle of the first GPU in CUDA_VISIBLE_DEVICES; None without one.

    The variable is read here because the question comes before torch starts CUDA, in a worker and
    in the fork server: it is what `DeviceSet.environment` has set.
    """
    import pynvml

    if not visible_gpus():
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    by_uuid = first.startswith(PREFIXES)
    handle = query(pynvml.nvmlDeviceGetHandleByUUID, first) if by_uuid else None
    return handle or query(
        pynvml.nvmlDeviceGetHandleByIndex, int(first) if first.isdecimal() else 0
    )


def _initialize() -> bool:
    import pynvml

    pynvml.nvmlInit()  # the library counts calls: repeating it is cheap
    return True


def used_bytes_by_uuid() -> dict[str, int]:
    """Return the bytes in use on every GPU, and on the MIG slice of this process, by UUID.

    Call this before this process uses CUDA, since a CUDA context takes memory.
    """
    import pynvml

    found: dict[str, int] = {}
    gpus = (query(pynvml.nvmlDeviceGetHandleByIndex, index) for index in range(visible_gpus()))
    for handle in (*gpus, _first_gpu()):
        uuid, memory = (
            query(pynvml.nvmlDeviceGetUUID, handle),
            query(pynvml.nvmlDeviceGetMemoryInfo, handle),
        )
        if uuid and memory:
            found[text_of(uuid)] = int(memory.used)
    return found


def text_of(answer: str | bytes) -> str:
    """Return an answer as text; older versions of the library give bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer


def _found(uuid: str) -> tuple[str, Any]:
    """Return the whole UUID and the handle of the GPU or MIG slice that torch names.

    torch leaves out what it begins with. Raises `NVMLError`.
    """
    import pynvml

    if uuid.startswith(PREFIXES):
        return uuid, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    for name in (f"{prefix}{uuid}" for prefix in PREFIXES):
        if (handle := query(pynvml.nvmlDeviceGetHandleByUUID, name)) is not None:
            return name, handle
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)


class Gpu:
    """One GPU or MIG slice, found by the UUID that torch reports.

    An index does not identify it: torch and NVML count differently under CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml

        _initialize()
        self._nvml: Any = pynvml
        self.uuid, self._handle = _found(uuid)

    @classmethod
    def current(cls) -> Gpu | None:
        """Return torch's current GPU or MIG slice; None if NVML cannot find it."""
        import pynvml
        import torch

        uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if visible.startswith("MIG-") and "," not in visible:  # torch may name the whole GPU
            uuid = visible
        try:
            return None if uuid is None else cls(str(uuid))
        except pynvml.NVMLError:
            return None

    def state(self) -> dict[str, Any]:
        """Return the current state as JSON values.

        Clocks in MHz, temperature in Celsius, power in watts, memory in bytes, throttle reasons,
        and the ids of other processes.
        """
        nvml, handle = self._nvml, self._handle
        memory = query(nvml.nvmlDeviceGetMemoryInfo, handle)
        return {
            "sm_clock_mhz": query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "temperature_celsius": query(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "power_watts": _scaled(query(nvml.nvmlDeviceGetPowerUsage, handle), 1e-3),
            "power_limit_watts": _scaled(query(nvml.nvmlDeviceGetEnforcedPowerLimit, handle), 1e-3),
            "throttle_reasons": self.throttle_reasons(),
            "memory_total_bytes": memory.total if memory else None,
            "memory_used_bytes": memory.used if memory else None,
            "other_processes": [pid for pid in self._bytes_by_process() if pid != os.getpid()],
        }

    def throttle_reasons(self) -> list[str]:
        """Return the names of the current reasons for throttled clocks."""
        bits = query(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle) or 0
        return [
            name for name, constant in THROTTLED.items() if bits & getattr(self._nvml, constant, 0)
        ]

    def energy_joules(self) -> float | None:
        """Return the energy counter (since the driver was loaded); None if the device has none."""
        return _scaled(query(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle), 1e-3)

    def own_bytes(self) -> int | None:
        """Return this process's memory on the device; None if its pid is hidden (in containers)."""
        return self._bytes_by_process().get(os.getpid())

    def used_bytes(self) -> int | None:
        """Return the memory in use on the device by all processes."""
        memory = query(self._nvml.nvmlDeviceGetMemoryInfo, self._handle)
        return int(memory.used) if memory else None

    def thermal_slowdown_seconds(self) -> float | None:
        """Return the seconds of thermal slowdown so far; None if the device has no counter."""
        policy = self._nvml.NVML_PERF_POLICY_THERMAL
        found = query(self._nvml.nvmlDeviceGetViolationStatus, self._handle, policy)
        return None if found is None else found.violationTime * 1e-9

    def _bytes_by_process(self) -> dict[int, int | None]:
        found = query(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or []
        return {process.pid: process.usedGpuMemory for process in found}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


class Energy:
    """Energy used between `start` and `read` in joules, from the device's counter."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._start = gpu, gpu.energy_joules()

    def start(self) -> None:
        """Count from here."""
        self._start = self._gpu.energy_joules()

    def read(self) -> float | None:
        """Return the joules since `start`; None without a counter."""
        now = self._gpu.energy_joules()
        return None if now is None or self._start is None else now - self._start


class Throttling:
    """Seconds of thermal slowdown between `start` and `read`, from NVML's violation counter.

    NVML counts the nanoseconds during which heat held the clocks down, so no slowdown between two
    readings is missed.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._start = gpu, gpu.thermal_slowdown_seconds()

    def start(self) -> None:
        """Count from here."""
        self._start = self._gpu.thermal_slowdown_seconds()

    def read(self) -> float | None:
        """Return the seconds of thermal slowdown since `start`; None without a counter."""
        now = self._gpu.thermal_slowdown_seconds()
        return None if now is None or self._start is None else now - self._start
