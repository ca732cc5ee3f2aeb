"""The probe of a device: on the host in the default suite, on a GPU behind the marker gpu."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from peft_methods.estimation.connected import ProgramEstimator
from peft_methods.estimation.time import probe, probes
from peft_methods.estimation.time.probes import Probed
from peft_methods.estimation.time.rates import PROBE, Corrections, DeviceRates, corrected
from peft_methods.utils import cache
from peft_methods.utils.errors import OptionError


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


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache._problem.cache_clear()
    return tmp_path


def probed(rates: DeviceRates, memory: int = 0) -> Probed:
    return Probed(rates, memory, (9, 0) if memory else (0, 0), "a host", "2026-11-30", 1.0)


def keep(rates: DeviceRates, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep these rates as those of this machine's GPU: there is none to measure."""
    monkeypatch.setattr(probe, "device_name", lambda _: rates.name)
    monkeypatch.setattr(probes, "_measure", lambda _: probed(rates, memory))
    probes.measured("cuda", fresh=True)


def test_a_probe_survives_storage(host: DeviceRates) -> None:
    for one in (probed(host), probed(host, 10**10)):
        assert probes.from_stored(json.loads(json.dumps(asdict(one)))) == one


def test_a_probe_is_measured_once(
    host: DeviceRates, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaces the measurement alone, which takes seconds: it would differ each time."""
    names = iter(["first", "second", "third"])
    monkeypatch.setattr(probes, "_measure", lambda _: probed(replace(host, name=next(names))))
    assert [probes.measured("cpu").rates.name for _ in range(2)] == ["first", "first"]
    assert probes.measured("cpu", fresh=True).rates.name == "second"
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert probes.measured("cpu").rates.name == "third"
    finally:
        torch.set_num_threads(threads)


def test_a_probed_device_is_found_by_any_of_its_names(
    host: DeviceRates, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = replace(host, name="NVIDIA H200", launch=1e-5)
    estimator = ProgramEstimator()
    assert estimator.device("H200").rates.basis == "datasheet"
    keep(rates, 150 * 10**9, monkeypatch)
    for name in ("H200", "NVIDIA H200", "nvidia h200", "H200 SXM"):
        device = estimator.device(name)
        assert device.memory_bytes == 150 * 10**9
        assert device.rates == corrected(rates, PROBE)
    assert estimator.device("H100").rates.basis == "datasheet"


def test_a_probe_makes_a_gpu_without_datasheet_known(
    host: DeviceRates, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = ProgramEstimator()
    with pytest.raises(OptionError, match="RTX 3090"):
        estimator.device("RTX 3060")
    keep(replace(host, name="NVIDIA GeForce RTX 3060"), 12 * 10**9, monkeypatch)
    assert estimator.device("RTX 3060").capability == (9, 0)
    with pytest.raises(OptionError):
        estimator.device("RTX 3061")


def test_rates_are_corrected_one_by_one(host: DeviceRates) -> None:
    assert corrected(host, Corrections()) == host
    half = corrected(host, Corrections(products=0.5))
    assert half.rate("fp32") == host.rate("fp32") / 2
    assert half.bandwidth == host.bandwidth
    for one in host.products:
        # the smallest take as long as their bytes are moved and the kernel is launched
        times = half.product_seconds(one.m, one.n, one.k, "fp32") / host.product_seconds(
            one.m, one.n, one.k, "fp32"
        )
        assert 1 <= times <= 2.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_probe_of_the_gpu_takes_at_most_thirty_seconds() -> None:
    """Prints the figures and writes them as JSON where PROBE_JSON says (pytest -s).

    Without the import of bitsandbytes, which takes as long on some hosts.
    """
    probe._quantiser()
    kept = probes.measured("cuda", fresh=True)
    found = kept.rates
    text = json.dumps(asdict(kept))
    print(text)
    if path := os.environ.get("PROBE_JSON"):
        Path(path).write_text(text, encoding="utf-8")
    assert kept.seconds <= 30
    assert probes.kept(found.name) == kept
    assert found.loaded_watts is None or found.loaded_watts > (found.idle_watts or 0)
    assert len(found.products) == 3 * 24
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
