"""The probe of a device: on the host in the default suite, on a GPU behind the marker gpu."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from peft_methods.estimation.time import probe
from peft_methods.estimation.time.rates import DeviceRates
from peft_methods.utils import cache


@pytest.fixture(scope="module")
def host() -> DeviceRates:
    return probe.probe("cpu", limit_seconds=0.5)


def test_rates_of_the_host_are_plausible(host: DeviceRates) -> None:
    assert host.basis == "probe"
    assert 1e8 < host.rate("half") == host.rate("fp32") < 1e14
    assert 1e6 < host.bandwidth < 1e12
    assert 1e7 < host.attention < 1e14
    assert 1e-7 < host.kernel < 1e-2
    assert host.launch == 0
    assert all(one.seconds > 0 for one in host.products)


def test_a_probe_survives_storage(host: DeviceRates) -> None:
    assert probe.from_stored(json.loads(json.dumps(asdict(host)))) == host


def test_a_probe_is_measured_once(
    host: DeviceRates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaces the measurement alone, which takes seconds: it would differ each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache._problem.cache_clear()
    names = iter(["first", "second"])
    monkeypatch.setattr(probe, "probe", lambda _: replace(host, name=next(names)))
    assert [probe.cached_probe("cpu").name for _ in range(2)] == ["first", "first"]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert probe.cached_probe("cpu").name == "second"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_probe_of_the_gpu_takes_at_most_thirty_seconds() -> None:
    """Prints the figures as JSON and the seconds that the probe took (pytest -s)."""
    started = time.perf_counter()
    found = probe.probe("cuda")
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, **asdict(found)}))
    assert seconds <= 30
    assert found.rate("half") > found.rate("fp32")
    assert found.bandwidth > 1e11
    assert 1e-7 < found.kernel < 1e-4
    assert 1e-7 < found.launch < 1e-3
    assert found.units == torch.cuda.get_device_properties(0).multi_processor_count
    side = 4096
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    measured = min(_seconds_of_products(a) for _ in range(3))
    assert found.product_seconds(side, side, side, "half") == pytest.approx(measured, rel=0.3)


def _seconds_of_products(a: torch.Tensor, count: int = 20) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        a @ a
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / count
