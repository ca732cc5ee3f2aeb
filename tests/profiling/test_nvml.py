"""NVML queries, with a fake library on machines without a GPU and the real one on others."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from nvml_builders import FakeDriver, FakeGpu, Slice, gpus, need_no_gpu, uuid_of

from peft_methods.profiling import device_memory, environment, nvml
from peft_methods.profiling.gpus import gpus_here


class FakeNvml:
    """A fake pynvml with one GPU. A value of None means that the device does not support it."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_PERF_POLICY_THERMAL = 1, 2, 0, 1
    nvmlClocksThrottleReasonHwSlowdown = 8
    nvmlClocksThrottleReasonSwPowerCap = 4
    nvmlClocksThrottleReasonHwThermalSlowdown = 64

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            "nvmlInit": 0,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "gpu",
            "nvmlDeviceGetHandleByUUID": "gpu",
            "nvmlDeviceGetUUID": b"GPU-1",
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetTemperature": 40,
            "nvmlDeviceGetPowerUsage": 350_000,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
            "nvmlDeviceGetTotalEnergyConsumption": 5_000,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 2**30, used=2**30),
            "nvmlDeviceGetComputeRunningProcesses": [],
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlDeviceGetName": b"H100",
            "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=2_000_000_000),
        }

    def __getattr__(self, name: str) -> Any:
        if name not in self.values:
            raise AttributeError(name)

        def call(*_: Any) -> Any:
            if self.values[name] is None:
                raise self.NVMLError("Not Supported")
            return self.values[name]

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def process(pid: int, size: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=size)


def test_gpu_state_has_units_throttle_reasons_and_other_processes(fake: FakeNvml) -> None:
    fake.values["nvmlDeviceGetCurrentClocksThrottleReasons"] = 64 | 4
    fake.values["nvmlDeviceGetComputeRunningProcesses"] = [
        process(os.getpid(), 10),
        process(1, None),
    ]
    state = nvml.Gpu("1").state()
    assert state["throttle_reasons"] == ["hardware thermal", "power cap"]
    assert (state["power_watts"], state["power_limit_watts"]) == (350.0, 700.0)
    assert state["other_processes"] == [1]
    assert nvml.driver_version() == "580.1"


@pytest.mark.parametrize(
    "name", [n for n in FakeNvml().values if n.startswith("nvmlDeviceGet") and "Handle" not in n]
)
def test_unsupported_values_are_none_without_an_error(fake: FakeNvml, name: str) -> None:
    fake.values[name] = None
    gpu = nvml.Gpu("1")
    assert set(gpu.state())
    energy, heat, memory = (
        nvml.Energy(gpu),
        nvml.Throttling(gpu),
        device_memory.DeviceMemory(gpu, level_at_start=0),
    )
    for sensor in (energy, heat, memory):
        sensor.start()
        assert sensor.read() is None or sensor.read() == pytest.approx(sensor.read())
    assert nvml.used_bytes_by_uuid() in ({"GPU-1": 2**30}, {})


def test_energy_is_the_difference_of_the_counter(fake: FakeNvml) -> None:
    energy = nvml.Energy(nvml.Gpu("1"))
    fake.values["nvmlDeviceGetTotalEnergyConsumption"] = 12_500
    assert energy.read() == 7.5
    energy.start()
    assert energy.read() == 0.0


def test_device_memory_counts_this_process_if_its_pid_is_visible(fake: FakeNvml) -> None:
    fake.values["nvmlDeviceGetComputeRunningProcesses"] = [
        process(os.getpid(), 700),
        process(1, 5000),
    ]
    memory = device_memory.DeviceMemory(nvml.Gpu("1"), level_at_start=100)
    assert memory.read() == 700
    assert "this process" in memory.kind


def test_device_memory_counts_the_device_above_its_start_if_pids_are_hidden(
    fake: FakeNvml,
) -> None:
    memory = device_memory.DeviceMemory(nvml.Gpu("1"), level_at_start=2**29, interval=0.001)
    assert "whole device" in memory.kind
    with memory.sampling():
        fake.values["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(
            total=0, used=2**32
        )  # a peak between two readings of the meter
        time.sleep(0.2)
        fake.values["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(total=0, used=2**30)
        time.sleep(0.05)
    assert memory.read() == 2**32 - 2**29
    memory.start()
    assert memory.read() == 2**30 - 2**29


@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetCount"])
def test_find_device_returns_cpu_without_a_driver(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(environment, "package_version", lambda name: "2.11.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment.find_device() == "cuda"
    fake.values[missing] = None
    assert environment.find_device() == "cpu"


def test_name_and_capability_need_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    need_no_gpu()
    part = Slice(uuid_of("1", "MIG"))
    driver = FakeDriver([*gpus("a"), FakeGpu(uuid_of("b"), slices=(part,), capability=(8, 0))])
    driver.install(monkeypatch)
    assert (gpus_here()[0].name, nvml.compute_capability()) == ("NVIDIA H200", (9, 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", part.uuid)
    assert (gpus_here()[0].name, nvml.compute_capability()) == (
        "NVIDIA H200 MIG 1g.18gb",
        (8, 0),
    )
    driver.gpus.clear()
    assert (gpus_here(), nvml.compute_capability()) == ([], None)


def test_slice_is_found_by_what_torch_names_it_and_has_memory_but_no_energy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_no_gpu()
    part = Slice(uuid_of("1", "MIG"), used=3)
    FakeDriver([FakeGpu(uuid_of("b"), slices=(part,))]).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", part.uuid)
    for name in (part.uuid, part.uuid.removeprefix("MIG-")):
        gpu = nvml.Gpu(name)
        assert (gpu.uuid, gpu.used_bytes(), gpu.energy_joules()) == (part.uuid, 3, None)
    assert nvml.used_bytes_by_uuid()[part.uuid] == 3
    with pytest.raises(pynvml.NVMLError):
        nvml.Gpu("11111111")
    known = SimpleNamespace(uuid=uuid_of("b").removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    assert (nvml.Gpu.current() or nvml.Gpu("")).uuid == part.uuid  # torch named the whole GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_real_gpu_reports_state_and_memory() -> None:
    used = nvml.used_bytes_by_uuid()
    gpu = nvml.Gpu.current()
    assert gpu is not None
    assert gpu.uuid in used
    assert gpu.state()["memory_total_bytes"] > 2**30
    memory = device_memory.DeviceMemory(gpu, level_at_start=used[gpu.uuid])
    before = memory.read()
    block = torch.ones(2**28, device="cuda")
    after = memory.read()
    assert before is not None
    assert after is not None
    assert after - before >= block.numel() * 4 * 0.9
